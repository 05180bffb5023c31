"""Conversion to spiking networks on MNIST, beside SpikingJelly's: one command, all tables.

    python3 tools/bench/conversion.py HILLOCK DATA [WORK_DIR] [--parts train,default,...] [--seeds 3]

HILLOCK is the command; DATA holds MNIST's 10,000 test images (t10k-*-ubyte.gz): 8,000 train and calibrate, 2,000 are
held out, one fixed split. Networks (conv 32, conv 64, fc 256, batch normalization; and one with residuals) are trained
here by PyTorch and exported; WORK_DIR keeps them. SpikingJelly converts the same networks with the same calibration
images and sees the same held-out ones.
"""
import argparse
import gzip
import json
import os
import subprocess
import time

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("hillock")
parser.add_argument("data")
parser.add_argument("work", nargs="?", default="conversion-work")
parser.add_argument("--parts", default="train,default,peer,residual,qcfs,transformer")
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--torch-threads", type=int, default=4)
parser.add_argument("--batch", default="25", help="a software device gives up where a run of 64 steps takes too long")
parser.add_argument("--bias-samples", default="256", help="of the default conversion")
parser.add_argument("--images", type=int, default=2000, help="held-out images at most, for slow devices")
parser.add_argument("--long-images", type=int, default=2000, help="the same, for T above 16")
parser.add_argument("--peer-images", type=int, default=2000, help="the same, beside SpikingJelly")
parser.add_argument("--calibration", type=int, default=2000, help="training images that thresholds are found on")
args = parser.parse_args()
os.makedirs(args.work, exist_ok=True)
torch.set_num_threads(args.torch_threads)
CARD = "cuda" if torch.cuda.is_available() else "cpu"
SCALE = ["--scale", repr(1 / 255)]


def write_idx(path, data):
    with open(path, "wb") as f:
        f.write(bytes([0, 0, 8, data.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in data.shape))
        f.write(np.ascontiguousarray(data).tobytes())


def read_idx(path):
    raw = gzip.open(path).read()
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


images = read_idx(f"{args.data}/t10k-images-idx3-ubyte.gz")
labels = read_idx(f"{args.data}/t10k-labels-idx1-ubyte.gz")


def write_part(name, rows):
    os.makedirs(f"{args.work}/{name}", exist_ok=True)
    write_idx(f"{args.work}/{name}/images-idx3-ubyte", images[rows])
    write_idx(f"{args.work}/{name}/labels-idx1-ubyte", labels[rows])


order = np.random.default_rng(0).permutation(len(images))
PARTS = {"train": order[:8000], "calibrate": order[:args.calibration], "test": order[8000:]}
for part, rows in PARTS.items():
    write_part(part, rows)


def tensors(part):
    x = torch.from_numpy(images[PARTS[part]]).float().unsqueeze(1) / 255
    return x, torch.from_numpy(labels[PARTS[part]].astype(np.int64))


def cnn():
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(3136, 256), nn.ReLU(),
                         nn.Linear(256, 10))


def average(seed):
    """The same network with the pooling that SpikingJelly's tutorial asks for."""
    net = cnn()
    net[3], net[7] = nn.AvgPool2d(2), nn.AvgPool2d(2)
    return net


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b))
        self.side = nn.Sequential() if a == b and stride == 1 else \
            nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        self.last = nn.ReLU()

    def forward(self, x):
        return self.last(self.second(self.first(x)) + self.side(x))


def residual():
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1),
                         Block(16, 32, 2), Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = (part.reshape(n, tokens, self.heads, width // self.heads).transpose(1, 2)  # the batch stays first
                   for part in self.qkv(self.norm(x)).chunk(3, -1))
        a = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5, -1) @ v
        return x + self.out(a.transpose(1, 2).reshape(n, tokens, width))


class Transformer(nn.Module):
    """Patches of 7x7, two blocks: LayerNorm, attention, GELU."""
    def __init__(self, width=48):
        super().__init__()
        self.patch, self.place = nn.Conv2d(1, width, 7, 7), nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.attention = nn.ModuleList([Attention(width, 3) for _ in range(2)])
        self.mlp = nn.ModuleList([nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
                                                nn.Linear(2 * width, width)) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        for attention, mlp in zip(self.attention, self.mlp):
            x = attention(x)
            x = x + mlp(x)
        return self.head(self.norm(x.mean(1)))


KINDS = {"cnn": cnn, "average": lambda: average(0), "residual": residual, "transformer": Transformer}


def accuracy(net, part):
    x, y = tensors(part)
    with torch.no_grad():
        return sum((net(x[i:i + 250]).argmax(1) == y[i:i + 250]).sum().item() for i in range(0, len(x), 250)) / len(x)


def trained(kind, seed):
    """The network, trained once and kept, and its ONNX file."""
    torch.manual_seed(seed)
    net = KINDS[kind]()
    path = f"{args.work}/{kind}{seed}"
    if not os.path.exists(f"{path}.pt"):
        x, y = (v.to(CARD) for v in tensors("train"))
        net.to(CARD)
        epochs = args.epochs * (3 if kind == "transformer" else 1)
        steps = epochs * len(x) // 64
        opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=steps + 1)
        for epoch in range(epochs):
            net.train()
            shuffled = torch.randperm(len(x)).to(CARD)
            for i in range(0, len(x) - 63, 64):
                rows = shuffled[i:i + 64]
                batch = torch.roll(x[rows], (int(torch.randint(-2, 3, ())), int(torch.randint(-2, 3, ()))), (2, 3))
                loss = nn.functional.cross_entropy(net(batch), y[rows])
                opt.zero_grad()
                loss.backward()
                opt.step()
                rate.step()
        torch.save(net.cpu().state_dict(), f"{path}.pt")
    net.load_state_dict(torch.load(f"{path}.pt"))
    net.eval()
    if not os.path.exists(f"{path}.onnx"):
        torch.onnx.export(net, (torch.zeros(2, 1, 28, 28),), f"{path}.onnx", dynamo=False, opset_version=17,
                          input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    return net, f"{path}.onnx"


if "train" in args.parts.split(","):
    print("network     seed  accuracy of the original, held out")
    for kind in KINDS:
        for seed in range(args.seeds if kind == "cnn" else 1):
            print(f"{kind:<11} {seed:>4}  {100 * accuracy(trained(kind, seed)[0], 'test'):.2f} %", flush=True)


def hillock(*words):
    out = subprocess.run([args.hillock, *words], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"hillock {' '.join(words)}: {out.stderr[-2000:]}")
    return json.loads(out.stdout) if "--json" in words else out.stdout


def held_out(count):
    name = f"test{count}"
    write_part(name, PARTS["test"][:count])
    return f"{args.work}/{name}"


def evaluate(model, original, steps, count):
    """By number of steps: accuracy, its loss against the original in points, same class, SynOps by MACs."""
    data = held_out(count)
    ann = hillock("eval", original, "--data", data, *SCALE, "--batch", args.batch, "--json")["accuracy"]
    runs = hillock("eval", model, "--data", data, *SCALE, "--batch", args.batch, "--json", "--against", original, "--steps",
                   ",".join(map(str, steps)))["runs"]
    return ann, {r["steps"]: (r["accuracy"], 100 * (ann - r["accuracy"]), r["same_class"], r["synops"] / r["macs"])
                 for r in runs}


def convert(original, out, *words):
    hillock("convert", original, "--calibrate", f"{args.work}/calibrate", *SCALE, "--batch", args.batch, "--out", out,
            *words)
    return out


def default_table():
    print("\nno retraining, converted for each T: MMSE per channel, V0 = theta/2, biases calibrated")
    print("network     T  images  original  spiking  points lost  same class  SynOps/MACs")
    mean = {}
    for seed in range(args.seeds):
        original = trained("cnn", seed)[1]
        for t in (4, 16, 64):
            count = args.images if t <= 16 else args.long_images
            snn = convert(original, f"{args.work}/cnn{seed}-{t}.onnx", "--steps", str(t), "--bias-samples",
                          args.bias_samples)
            ann, rows = evaluate(snn, original, [t], count)
            accuracy_, lost, same, synops = rows[t]
            mean.setdefault(t, []).append((lost, same))
            print(f"cnn {seed:>3} {t:>5} {count:>7} {100 * ann:>9.2f} {100 * accuracy_:>8.2f} {lost:>12.2f} "
                  f"{100 * same:>11.2f} {synops:>12.3f}", flush=True)
    for t, values in mean.items():
        lost, same = np.mean(values, axis=0)
        print(f"mean    {t:>5} {'':>26} {lost:>12.2f} {100 * same:>11.2f}")


def spikingjelly(net, mode, steps, count):
    """Accuracy by number of steps: SpikingJelly's converter on the same calibration images, mean output over time."""
    import copy
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter
    from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe
    x, y = tensors("calibrate")
    loader = [(x[i:i + 100], y[i:i + 100]) for i in range(0, len(x), 100)]
    snn = Converter(RateCodingRecipe(dataloader=loader, mode=mode)).convert(copy.deepcopy(net)).eval().to(CARD)
    x, y = (v.to(CARD) for v in tensors("test"))
    right = dict.fromkeys(steps, 0)
    with torch.no_grad():
        for i in range(0, count, 100):
            functional.reset_net(snn)
            total = 0
            for t in range(1, max(steps) + 1):
                total = total + snn(x[i:i + 100])
                if t in right:
                    right[t] += (total.argmax(1) == y[i:i + 100]).sum().item()
    return {t: n / count for t, n in right.items()}


def peer_table():
    steps = [1, 2, 4, 8, 16]
    print("\nbeside SpikingJelly: accuracy at equal T, ours / theirs; the same calibration images, "
          f"{args.peer_images} held out\nnetwork     mode   " + "".join(f"{t:>16}" for t in steps))
    for kind, seed in [("cnn", s) for s in range(args.seeds)] + [("average", 0)]:
        net, original = trained(kind, seed)
        for mode in ("max", "99.9%"):
            snn = convert(original, f"{args.work}/peer.onnx", "--mode", mode, "--steps", "16")
            ours = evaluate(snn, original, steps, args.peer_images)[1]
            theirs = spikingjelly(net, mode, steps, args.peer_images)
            print(f"{kind:<9} {seed} {mode:<6}" + "".join(f"{100 * ours[t][0]:>8.2f}/{100 * theirs[t]:<7.2f}"
                                                          for t in steps), flush=True)


def curve(title, model, original, steps, count):
    ann, rows = evaluate(model, original, steps, count)
    print(f"{title}: original {100 * ann:.2f} %, {count} images\n     T  spiking  points lost  same class  SynOps/MACs")
    for t, (accuracy_, lost, same, synops) in rows.items():
        print(f"{t:>6} {100 * accuracy_:>8.2f} {lost:>12.2f} {100 * same:>11.2f} {synops:>12.3f}", flush=True)


def residual_table():
    original = trained("residual", 0)[1]
    snn = convert(original, f"{args.work}/residual.onnx", "--steps", "16")
    curve("\nresiduals, converted for T = 16", snn, original, [1, 2, 4, 8, 16], args.images)


def qcfs_table():
    levels, epochs = 4, 6
    for seed in range(args.seeds):
        original = trained("cnn", seed)[1]
        quantised = convert(original, f"{args.work}/qcfs{seed}.onnx", "--qcfs", str(levels))
        out = f"{args.work}/qcfs{seed}-tuned"
        if not os.path.exists(f"{out}/model.onnx"):
            hillock("train", quantised, "--data", f"{args.work}/train", *SCALE, "--epochs", str(epochs), "--lr", "1e-3",
                    "--schedule", "cosine", "--batch", "64", "--out", out, "--quiet")
        snn = convert(f"{out}/model.onnx", f"{args.work}/qcfs{seed}-snn.onnx", "--steps", "2")
        curve(f"\nQCFS of {levels} levels, fine-tuned {epochs} epochs, seed {seed}, converted for T = 2", snn, original,
              [1, 2], args.images)


def transformer_table():
    original = trained("transformer", 0)[1]
    snn = convert(original, f"{args.work}/transformer-snn.onnx", "--functional", "--steps", "32")
    curve("\ntransformer: functional, not spike-only; spikes drive the weights", snn, original, [1, 2, 4, 8, 16, 32],
          args.images)


for part, table in {"default": default_table, "residual": residual_table, "qcfs": qcfs_table,
                    "transformer": transformer_table, "peer": peer_table}.items():
    if part in args.parts.split(","):
        begun = time.monotonic()
        table()
        print(f"({part}: {time.monotonic() - begun:.0f} s)", flush=True)
