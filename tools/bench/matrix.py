"""What runs on matrix units on one GPU, precisions high and fast, Hillock and PyTorch in one run.

    python3 tools/bench/matrix.py BUILD_DIR [WORK_DIR] [--only gemm,conv,resnet50,bert,batch1,training] [--seconds 0.5]

Every line: ours, the peers, the ratio of our time to each, and what it must be at most (for products and convolutions:
TFLOP/s at least). Peers are PyTorch's fp32, tf32 and 16-bit rows; the fastest of a class is meant, channels-last or not,
models and steps as CUDA graphs. Ours are device times between two timestamps, theirs between two events. Errors are
against fp64, those of PyTorch's fp32, tf32 and float16 beside them; training steps compare their first loss with fp32's.
BUILD_DIR holds hillock, test_gemm and train_step.
"""
import argparse
import copy
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import torch
from common import export, gpu_ms, graphed, hillock, inference_model, train_step, training_model
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("work", nargs="?", default="matrix-work")
parser.add_argument("--only", default="gemm,conv,resnet50,bert,batch1,training")
parser.add_argument("--seconds", type=float, default=0.5)
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
F = torch.nn.functional
CLASSES = ("fp32", "tf32", "16-bit")


def tf32(on):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def measure(fn, allow=False):
    """Milliseconds of fn, with tf32 where it is allowed."""
    tf32(allow)
    try:
        return gpu_ms(fn, args.seconds)
    finally:
        tf32(False)


def error_of(got, want):
    return float((got.double() - want).norm() / want.norm())


def verdicts(ms, peers, must):
    """must: class -> the most that ours / the peer's may be."""
    text = ""
    for name in CLASSES:
        if name in peers:
            ratio = ms / peers[name]
            text += f"; {name} {peers[name]:.3f} ms ratio {ratio:.3f}"
            if name in must:
                text += f" must {must[name]}: {'met' if ratio <= must[name] else 'missed'}"
    return text


def gemm():
    n = 8192
    a, b = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
    ah, bh, flops = a.half(), b.half(), 2.0 * n**3
    peers = {"fp32": measure(lambda: a @ b), "tf32": measure(lambda: a @ b, True), "16-bit": measure(lambda: ah @ bh)}
    del a, b, ah, bh
    torch.cuda.empty_cache()
    for word, must in (("f16", 260), ("high", 85)):
        for trans in ("NN", "NT"):
            words = [f"{build}/test_gemm", "bench", str(n), str(n), str(n), trans, word, "chosen"]
            line = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
            name, us, error = re.match(r"chosen: (.*?) +splits \d+ +([\d.]+) us .*error (\S+)", line).groups()
            rate = flops / float(us) * 1e-6
            print(f"GEMM {n}^3 {word} {trans}: {rate:.1f} TFLOP/s must {must}: {'met' if rate >= must else 'missed'}"
                  + verdicts(float(us) * 1e-3, peers, {}) + f" [{name}] error {error}", flush=True)


def conv():
    for channels, side, kernel, out in ((64, 56, 3, 64), (128, 28, 3, 128), (256, 14, 3, 256), (512, 7, 3, 512),
                                        (256, 56, 1, 64), (1024, 14, 1, 256), (512, 7, 1, 2048)):
        x, w = torch.randn(64, channels, side, side, device="cuda"), torch.randn(out, channels, kernel, kernel, device="cuda")
        pad, last = kernel // 2, torch.channels_last
        run = lambda x, w: F.conv2d(x, w, padding=pad)
        xl, wl = x.to(memory_format=last), w.to(memory_format=last)
        xh, wh = xl.half(), wl.half()
        peers = {name: min(measure(lambda: run(x, w), name == "tf32"), measure(lambda: run(xl, wl), name == "tf32"))
                 for name in ("fp32", "tf32")}
        peers["16-bit"] = measure(lambda: run(xh, wh))
        exact = run(x.double(), w.double())
        path = f"{work}/conv.onnx"
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        onnx.save(helper.make_model(helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], pads=[pad] * 4)], "layer", [value("x", list(x.shape))], [value("y", None)],
            [numpy_helper.from_array(w.cpu().numpy(), "w")]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        np.save(f"{work}/x.npy", x.cpu().numpy())
        flops = 2.0 * exact.numel() * channels * kernel**2
        title = f"conv {kernel}x{kernel} b64 {channels} -> {out}, {side}x{side}"
        for precision, must in (("strict", None), ("high", 60), ("fast", 120)):
            hillock(build, "run", path, "--input", f"x={work}/x.npy", "--output-dir", f"{work}/out", "--precision", precision)
            error = error_of(torch.from_numpy(np.load(f"{work}/out/y.npy")).cuda(), exact)
            # Dispatches one by one, what changes layout or storage at the edges left out.
            nodes = hillock(build, "profile", path, "--json", "--runs", "10", "--precision", precision)["nodes"]
            nodes = [n for n in nodes if n["where"] == "device"]
            kernels = [n for n in nodes if "conv" in n["kernel"] or "gemm" in n["kernel"] or "split" in n["kernel"]]
            ms = sum(n["us"] for n in kernels) * 1e-3
            whole = hillock(build, "bench", path, "--json", "--seconds", "0.2", "--precision", precision)["device_ms"]
            if len(kernels) == len(nodes):
                ms = whole
            rate = flops / ms * 1e-9
            verdict = f" must {must}: {'met' if rate >= must else 'missed'}" if must and kernel == 3 else ""
            print(f"{title} {precision}: {ms * 1e3:.1f} us {rate:.1f} TFLOP/s{verdict} (whole graph {whole * 1e3:.1f} us)"
                  + verdicts(ms, peers, {}) + f" [{', '.join(n['kernel'] for n in kernels)}] error {error:.1e}", flush=True)


def model_peers(model, x):
    """Class -> milliseconds of its fastest graph."""
    forms = [(model, x)]
    if x.dim() == 4:
        forms.append((copy.deepcopy(model).to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)))
    rows = {name: [] for name in CLASSES}
    for m, data in forms:
        for name in CLASSES:
            part = copy.deepcopy(m).half() if name == "16-bit" else m
            feed = data.half() if name == "16-bit" and data.is_floating_point() else data
            tf32(name == "tf32")
            rows[name].append(gpu_ms(graphed(lambda: part(feed)), args.seconds))
    tf32(False)
    return {name: min(times) for name, times in rows.items()}


def model(name, batch, musts):
    """musts: precision -> class -> ratio; "any": the fastest of all classes."""
    network, make = inference_model(name)
    x = make(batch)
    path = f"{work}/{name}.onnx"
    export(network, x, path)
    np.save(f"{work}/x.npy", x.numpy())
    with torch.no_grad():
        network, xc = network.cuda(), x.cuda()
        peers = model_peers(network, xc)
        single = network(xc)
        tf32(True)
        rough = network(xc)
        tf32(False)
        half = copy.deepcopy(network).half()(xc.half() if xc.is_floating_point() else xc)
        want = network.double()(xc.double() if xc.is_floating_point() else xc)
    theirs = f" (PyTorch fp32 {error_of(single, want):.1e}, tf32 {error_of(rough, want):.1e}, float16 {error_of(half, want):.1e})"
    for precision, must in musts.items():
        words = ["--precision", precision]
        hillock(build, "run", path, "--input", f"x={work}/x.npy", "--output-dir", f"{work}/out", *words)
        output = torch.from_numpy(np.load(f"{work}/out/y.npy")).cuda()
        ms = hillock(build, "bench", path, "--json", "--seconds", str(args.seconds), *words)["device_ms"]
        must = {min(peers, key=peers.get) if k == "any" else k: v for k, v in must.items()}
        print(f"{name} b{batch} {precision}: {ms:.3f} ms" + verdicts(ms, peers, must)
              + f" error {error_of(output, want):.1e}{theirs}", flush=True)
    os.remove(path)


def captured(network, x, y, kind, channels_last):
    network, x, y = copy.deepcopy(network).cuda().train(), x.cuda(), y.cuda()
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True, capturable=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=kind == "16-bit"):
            loss = F.cross_entropy(network(x).float(), y)
        loss.backward()
        optimizer.step()
    tf32(kind == "tf32")
    try:
        return gpu_ms(graphed(step), args.seconds)
    finally:
        tf32(False)
        torch.cuda.empty_cache()


def training():
    musts = {"resnet50": (64, {"strict": {}, "high": {"fp32": 0.5}, "fast": {"16-bit": 1.4}}),
             "bert": (32, {"strict": {}, "high": {"fp32": 0.55}, "fast": {"16-bit": 1.4}}),
             "simplecnn": (256, {"high": {}, "fast": {"16-bit": 0.6}})}
    for name, (batch, precisions) in musts.items():
        network, x = training_model(name, batch)
        y = torch.randint(0, 10, (batch,))
        path = f"{work}/{name}.onnx"
        export(copy.deepcopy(network), x, path, True)
        forms = (False, True) if x.dim() == 4 else (False,)
        peers = {kind: min(captured(network, x, y, kind, last) for last in forms) for kind in CLASSES}
        with torch.no_grad():
            loss = float(F.cross_entropy(copy.deepcopy(network).cuda()(x.cuda()), y.cuda()))
        for precision, must in precisions.items():
            rows = train_step(build, work, path, x, y, "--seconds", str(args.seconds), "--precision", precision)
            ms, ours = float(rows["device_ms"][0]), float(rows["loss"][0])
            print(f"{name} b{batch} training step {precision}: {ms:.3f} ms" + verdicts(ms, peers, must)
                  + f" first loss {ours:.6f} (PyTorch fp32 {loss:.6f})", flush=True)
        os.remove(path)
        torch.cuda.empty_cache()


def batch1():
    for name, must in (("resnet50", 0.7), ("mobilenet_v2", 0.7), ("efficientnet_b0", 0.7), ("bert", 0.75), ("vit_b_16", 1.2)):
        model(name, 1, {"high": {}, "fast": {"any": must}})


PARTS = {
    "gemm": gemm,
    "conv": conv,
    "resnet50": lambda: model("resnet50", 64, {"strict": {}, "high": {"fp32": 0.65, "tf32": 1.6}, "fast": {"16-bit": 1.5}}),
    "bert": lambda: model("bert", 32, {"strict": {}, "high": {"fp32": 0.6}, "fast": {"16-bit": 1.3}}),
    "batch1": batch1,
    "training": training,
}

print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__, hillock(build, "--version").strip(), flush=True)
failed = False
for part in args.only.split(","):
    try:
        PARTS[part]()
    except Exception as e:  # the other rows are still wanted
        print(part, "FAILED:", repr(e)[:500], flush=True)
        failed = True
    torch.cuda.empty_cache()
sys.exit(failed)
