"""Accuracy on MNIST's 10,000 images, Hillock and PyTorch from the same weights, split and batches.

    python3 tools/bench/mnist.py BUILD_DIR DATA_DIR [WORK_DIR] [--seeds 5] [--epochs 10] [--no-peer]

DATA_DIR holds t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, gzipped where the build reads that. From scratch: conv
32, conv 64, fc 256, BatchNormalization, batches of 64, AdamW with a cosine from 1e-3, 8,000 images to train and 2,000
held out, drawn anew with each seed; asked are 98.0 % in the mean and no more than half a point below PyTorch. Then
tests/data/five_digits, which PyTorch trained on UCI's digits 0 to 4 of 8x8 pixels and exported with BatchNormalization
folded, gets a head for ten classes and these images at its size; asked are 97 %. Accuracies are those after the last
epoch, as `hillock train` reports them and as PyTorch has them.
"""
import argparse
import copy
import csv
import os
import pathlib
import time

import numpy as np
import torch
from common import hillock, mnist_file, permuted, split
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("data")
parser.add_argument("work", nargs="?", default="mnist-work")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--no-peer", action="store_true", help="ours alone")
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
device = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, HELD = 64, 0.2


# ---- both sides

def network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 10))


def export(model, path):
    torch.onnx.export(model.train(), (torch.zeros(2, 1, 28, 28),), path, dynamo=False, opset_version=17,
                      training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, input_names=["x"],
                      output_names=["y"], dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})


def train(model, x, y, samples, held, seed):
    """PyTorch: percent of the held-out images that it gets right."""
    model = model.to(device).train()
    steps = args.epochs * ((len(samples) + BATCH - 1) // BATCH)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for epoch in range(args.epochs):
        order = torch.tensor(permuted(samples, seed, epoch), device=device)
        for rows in order.split(BATCH):
            opt.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            opt.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return float((model(x[held]).argmax(1) == y[held]).float().mean()) * 100


def train_ours(path, images, labels, seed, *options):
    out = f"{work}/out"
    hillock(build, "train", path, "--data", str(images), "--labels", str(labels), "--val", str(HELD), "--batch", str(BATCH),
            "--schedule", "cosine", "--seed", str(seed), "--out", out, *options)
    with open(f"{out}/metrics.csv") as f:
        return float(list(csv.DictReader(f))[-1]["accuracy"]) * 100


def from_scratch(x, y, images, labels):
    ours, theirs = [], []
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        model, start = network(), time.time()
        export(copy.deepcopy(model), f"{work}/scratch.onnx")
        ours.append(train_ours(f"{work}/scratch.onnx", images, labels, seed, "--lr", "1e-3", "--epochs", str(args.epochs)))
        middle = time.time()
        if not args.no_peer:
            theirs.append(train(model, x, y, *split(len(y), HELD, seed), seed))
        text = f"seed {seed}: {ours[-1]:.2f} % in {middle - start:.1f} s"
        print(text + (f"; PyTorch {theirs[-1]:.2f} % in {time.time() - middle:.1f} s" if theirs else ""), flush=True)
    mean = np.mean(ours)
    met = mean >= 98 and (not theirs or mean >= np.mean(theirs) - 0.5)
    print(f"MNIST from scratch, mean of {args.seeds} seeds: {mean:.2f} %" +
          (f"; PyTorch {np.mean(theirs):.2f} %" if theirs else "") + f", asked 98.0 and PyTorch's less 0.5: {'met' if met else 'missed'}")


def five_to_ten(images, labels):
    model = pathlib.Path(__file__).parents[2] / "tests/data/five_digits/model.onnx"
    ten = train_ours(str(model), images, labels, 0, "--new-head", "10", "--rebuild-bn", "--shape", "1,8,8", "--lr", "4e-3",
                     "--epochs", "20")
    print(f"MNIST at 8x8, five digits' model with a head for ten: {ten:.2f} %, asked 97.0: {'met' if ten >= 97 else 'missed'}")


def main():
    images, pixels = mnist_file(args.data, "images")
    labels, classes = mnist_file(args.data, "labels")
    x = torch.tensor(pixels.astype(np.float32) / 255, device=device)[:, None]
    y = torch.tensor(classes.astype(np.int64), device=device)
    from_scratch(x, y, images, labels)
    five_to_ten(images, labels)


main()
