"""Single kernels on one GPU, Hillock and PyTorch in one run, outputs compared first.

    python3 tools/bench/single_kernels.py BUILD_DIR [WORK_DIR] [--only gemm,conv,stream,transpose]

Rows: fp32 GEMM; ResNet's convolutions at batch 64; what moves memory (pointwise, reductions and norms over the last axis,
transposes) on 256 MiB tensors, as a share of the rate at which PyTorch copies 256 MiB on this card. fp32 without tf32 on
both sides. Ours are device timestamps of the whole recording.
"""
import argparse
import os

import numpy as np
import onnx
import torch
from common import gpu_ms, hillock
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("work", nargs="?", default="kernels-work")
parser.add_argument("--only", default="gemm,conv,stream,transpose")
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
F = torch.nn.functional


def gpu_us(fn):
    return gpu_ms(fn, 0.5) * 1e3


def ours(nodes, inputs, constants, output="y"):
    """Device microseconds and the output of a graph with the given nodes; inputs and constants: name -> tensor."""
    value = lambda name, t: helper.make_tensor_value_info(name, TensorProto.FLOAT, list(t.shape))
    graph = helper.make_graph(nodes, "kernel", [value(k, v) for k, v in inputs.items()],
                              [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(np.ascontiguousarray(v.cpu().numpy()), k) for k, v in constants.items()])
    path = f"{work}/kernel.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    feeds = []
    for k, v in inputs.items():
        np.save(f"{work}/{k}.npy", v.cpu().numpy())
        feeds += ["--input", f"{k}={work}/{k}.npy"]
    hillock(build, "run", path, *feeds, "--output-dir", f"{work}/out")
    got = torch.from_numpy(np.load(f"{work}/out/{output}.npy")).cuda()
    bench = hillock(build, "bench", path, "--json", "--seconds", "0.5")
    kernels = [r["kernel"] for r in hillock(build, "profile", path, "--json", "--runs", "3")["nodes"] if r["where"] == "device"]
    os.remove(path)
    return bench["device_ms"] * 1e3, got, ", ".join(kernels)


def row(title, us, got, kernels, peer, exact, flops=0, bytes_=0, copy=0, asked=None):
    theirs = gpu_us(peer)
    want = exact().double()
    error = float((got.double() - want).norm() / want.norm())
    if flops:
        rate, unit, share = flops / us * 1e-6, "TFLOP/s", flops / us * 1e-6
    else:
        rate, unit, share = bytes_ / us * 1e-3, "GB/s", bytes_ / us * 1e-3 / copy
    verdict = "" if asked is None else f"; asked {asked}: {'met' if share >= asked else 'missed'}"
    text = f"{title:44s} {us:9.1f} us {rate:8.1f} {unit}" + (f" ({share:.2f} of copy)" if copy else "")
    text += f"; PyTorch {theirs:.1f} us, ratio {us / theirs:.2f}" if error <= 1e-5 else f"; error {error:.1e}: not comparable"
    print(text + verdict + f" [{kernels}] error {error:.1e}", flush=True)


def gemm():
    for m, n, k, asked in ((4096, 4096, 4096, 40), (4096, 512, 14336, None), (1024, 1024, 1024, None), (256, 256, 256, None)):
        a, b = torch.randn(m, k, device="cuda"), torch.randn(k, n, device="cuda")
        us, got, kernels = ours([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b}, {})
        row(f"GEMM {m}x{n}x{k}", us, got, kernels, lambda: a @ b, lambda: a.double() @ b.double(), flops=2.0 * m * n * k, asked=asked)


def conv():
    shapes = [(64, 64, 56, 64, 3, 1, 35), (64, 128, 28, 128, 3, 1, 35), (64, 256, 14, 256, 3, 1, 35), (64, 512, 7, 512, 3, 1, 35),
              (64, 256, 56, 64, 1, 1, None), (64, 64, 56, 256, 1, 1, None), (64, 3, 224, 64, 7, 2, None), (1, 64, 56, 64, 3, 1, None)]
    for n, c, h, k, r, s, asked in shapes:
        x, w = torch.randn(n, c, h, h, device="cuda"), torch.randn(k, c, r, r, device="cuda")
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[r // 2] * 4, strides=[s, s])
        us, got, kernels = ours([node], {"x": x}, {"w": w})
        out = (h + 2 * (r // 2) - r) // s + 1
        row(f"conv N{n} C{c} H{h} K{k} R{r} s{s}", us, got, kernels, lambda: F.conv2d(x, w, stride=s, padding=r // 2),
            lambda: F.conv2d(x.double(), w.double(), stride=s, padding=r // 2), flops=2.0 * n * k * c * r * r * out * out, asked=asked)


def stream(rows_wanted=slice(0, 7)):
    count = 1 << 26  # 256 MiB
    x = torch.randn(count, device="cuda")
    y = torch.empty_like(x)
    copy = 2 * x.nbytes / gpu_us(lambda: y.copy_(x)) * 1e-3
    print(f"copy of 256 MiB: {copy:.0f} GB/s read + written")
    rows = x.view(-1, 1024)
    square = x.view(8192, 8192)
    image = x.view(64, 256, 64, 64)
    node = lambda op, inputs=("x",), **attrs: helper.make_node(op, list(inputs), ["y"], **attrs)
    w, b = torch.randn(1024, device="cuda"), torch.randn(1024, device="cuda")
    cases = [("Relu", node("Relu"), x, {}, lambda t: t.relu(), 2, 0.85),
             ("Sigmoid", node("Sigmoid"), x, {}, lambda t: t.sigmoid(), 2, 0.85),
             ("Add of a row", node("Add", ("x", "b")), rows, {"b": b}, lambda t: t + b.to(t.dtype), 2, 0.85),
             ("ReduceSum last axis (1024)", node("ReduceSum", ("x", "axes"), keepdims=0), rows, {"axes": torch.tensor([-1])}, lambda t: t.sum(-1), 1, 0.85),
             ("ReduceMax last axis (8192)", node("ReduceMax", axes=[-1], keepdims=0), square, {}, lambda t: t.amax(-1), 1, 0.85),
             ("Softmax last axis (1024)", node("Softmax", axis=-1), rows, {}, lambda t: t.softmax(-1), 2, 0.85),
             ("LayerNormalization (1024)", node("LayerNormalization", ("x", "w", "b"), axis=-1), rows, {"w": w, "b": b},
              lambda t: F.layer_norm(t, (1024,), w.to(t.dtype), b.to(t.dtype)), 2, 0.85),
             ("Transpose 8192x8192", node("Transpose", perm=[1, 0]), square, {}, lambda t: t.t().contiguous(), 2, 0.65),
             ("Transpose NCHW to NHWC", node("Transpose", perm=[0, 2, 3, 1]), image, {}, lambda t: t.permute(0, 2, 3, 1).contiguous(), 2, 0.65),
             ("Transpose of heads (0,2,1,3)", node("Transpose", perm=[0, 2, 1, 3]), x.view(512, 128, 16, 64), {},
              lambda t: t.permute(0, 2, 1, 3).contiguous(), 2, 0.65)]
    for title, n, data, constants, peer, accesses, asked in cases[rows_wanted]:
        us, got, kernels = ours([n], {"x": data}, constants)
        row(title, us, got, kernels, lambda: peer(data), lambda: peer(data.double()), bytes_=accesses * data.nbytes, copy=copy, asked=asked)


print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__, hillock(build, "--version").strip())
for part in args.only.split(","):
    {"gemm": gemm, "conv": conv, "stream": stream, "transpose": lambda: stream(slice(7, None))}[part]()
    torch.cuda.empty_cache()
