"""Whole models on one GPU, Hillock and PyTorch in one run, outputs compared first.

    python3 tools/bench/models.py BUILD_DIR [WORK_DIR] [--models resnet50,bert] [--batches 1,64] [--profile]
                                  [--precision fast]

Models are torchvision's and transformers' own with random weights, 224x224 or 128 tokens, exported here by the
TorchScript exporter. fp32 without tf32 on both sides. Peers: PyTorch eager, as a CUDA graph, and both channels-last;
the fastest of them is the peer. Ours is device time between two timestamps around the recording, theirs between two
events around the replay, inputs on the device for both. No ratio is printed where our output is further from fp64's
than 5e-6 and three times PyTorch's own error. With --profile the dispatches of every model go to WORK_DIR.
With --precision fast (16-bit storage and operands) PyTorch's model and input are float16, and its rows are graphs.
"""
import argparse
import copy
import json
import os

import numpy as np
import torch
from common import export, gpu_ms, graphed, hillock, inference_model

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("work", nargs="?", default="models-work")
parser.add_argument("--models", default="resnet18,resnet50,mobilenet_v2,efficientnet_b0,bert,vit_b_16")
parser.add_argument("--batches", default="1,64")
parser.add_argument("--profile", action="store_true")
parser.add_argument("--no-peer", action="store_true", help="ours alone, to compare two builds")
parser.add_argument("--seconds", default="1")
parser.add_argument("--precision", choices=["strict", "high", "fast"], default="strict")
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
fast = args.precision == "fast"
precision = ["--precision", args.precision]

# What the issue asks for: ratio ours / peer, by (model, batch).
BOUNDS = {("resnet18", 1): 0.6, ("resnet50", 1): 0.6, ("mobilenet_v2", 1): 0.6, ("efficientnet_b0", 1): 0.6,
          ("bert", 1): 0.75, ("vit_b_16", 1): 0.85, ("resnet50", 64): 1.0, ("mobilenet_v2", 64): 0.6,
          ("efficientnet_b0", 64): 0.7, ("resnet18", 64): 1.2, ("bert", 32): 1.3, ("vit_b_16", 64): 1.3}
if args.precision == "high":
    BOUNDS = {("bert", 32): 0.6}
elif fast:
    BOUNDS = {("resnet50", 1): 0.7, ("mobilenet_v2", 1): 0.7, ("efficientnet_b0", 1): 0.7, ("bert", 1): 0.75,
              ("vit_b_16", 1): 1.2, ("resnet50", 64): 1.5, ("bert", 32): 1.3}


def peers(model, x):
    rows, seconds = {}, float(args.seconds)
    forms = [("", model, x)]
    if x.dim() == 4:
        forms.append((" channels-last", copy.deepcopy(model).to(memory_format=torch.channels_last),
                      x.to(memory_format=torch.channels_last)))
    for suffix, m, data in forms:
        if not fast:
            rows["eager" + suffix] = gpu_ms(lambda: m(data), seconds)
        rows["graph" + suffix] = gpu_ms(graphed(lambda: m(data)), seconds)
    return rows


def error_of(got, want):
    return float((got.double() - want).norm() / want.norm())


def one(name, batch):
    model, make = inference_model(name)
    x = make(batch)
    path = f"{work}/{name}.b{batch}.onnx"
    export(model, x, path)
    np.save(f"{work}/x.npy", x.numpy())
    hillock(build, "run", path, "--input", f"x={work}/x.npy", "--output-dir", f"{work}/out", *precision)
    got = torch.from_numpy(np.load(f"{work}/out/y.npy")).cuda()
    bench = hillock(build, "bench", path, "--json", "--seconds", args.seconds, *precision)
    if args.profile:
        with open(f"{work}/{name}.b{batch}.json", "w") as f:
            json.dump(hillock(build, "profile", path, "--json", "--runs", "10", *precision), f)
    ours = bench["device_ms"]
    text = f"{name:16s} b{batch:<3d} ours {ours:8.3f} ms (wall {bench['p50_ms']:.3f}, pipelined {bench['pipelined_ms']:.3f}, {bench['pipelines']} pipelines;"
    start = hillock(build, "bench", path, "--json", "--seconds", "0", "--warm-up", "0", *precision, cores="0,1")  # pipelines come from the disk
    text += " start: load {load_ms:.0f} plan {plan_ms:.1f} pipelines {pipelines_ms:.0f} weights {weights_ms:.0f} ms,".format(**start)
    text += f" heap +{start['anonymous_growth_bytes'] / os.path.getsize(path):.2f} of the file)"
    with torch.no_grad():
        single, xc = model.cuda(), x.cuda()
        peer, xp = (copy.deepcopy(single).half(), xc.half() if x.is_floating_point() else xc) if fast else (single, xc)
        theirs = peer(xp)
        rows = {} if args.no_peer else peers(peer, xp)
        want = single.double()(xc.double() if x.is_floating_point() else xc)
    error, their_error = error_of(got, want), error_of(theirs, want)
    text += f" error {error:.1e} (PyTorch {their_error:.1e})"
    if rows:
        best = min(rows, key=rows.get)
        ok = error <= max(5e-6, 3 * their_error)
        ratio = ours / rows[best]
        bound = BOUNDS.get((name, batch))
        verdict = "" if bound is None else f" asked {bound}: {'met' if ratio <= bound else 'missed'}"
        text += f" peer {rows[best]:.3f} ms ({best}) " + (f"ratio {ratio:.3f}{verdict}" if ok else "not comparable")
        text += " [" + ", ".join(f"{k} {v:.3f}" for k, v in rows.items()) + "]"
    print(text, flush=True)
    os.remove(path)


def main():
    print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__, hillock(build, "--version").strip(), flush=True)
    for name in args.models.split(","):
        for batch in map(int, args.batches.split(",")):
            batch = 32 if name == "bert" and batch > 32 else batch
            try:
                one(name, batch)
            except Exception as e:  # the other models' rows are still wanted
                print(name, batch, "FAILED:", repr(e)[:500], flush=True)
            torch.cuda.empty_cache()


main()
