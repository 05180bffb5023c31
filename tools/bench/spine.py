"""The spine's numbers on one GPU, Hillock and PyTorch in one run, outputs compared first.

    python3 tools/bench/spine.py BUILD_DIR [WORK_DIR]

Needs torch with CUDA, onnx and numpy beside a Hillock build. Training steps are in training.py.
"""
import os
import sys

import numpy as np
import onnx
import torch
from common import SimpleCNN, export, gpu_ms, graphed, hillock
from onnx import TensorProto, helper

build = os.path.abspath(sys.argv[1])
work = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else "spine-work")
os.makedirs(work, exist_ok=True)


def inference():
    torch.manual_seed(0)
    model = SimpleCNN().eval()
    x = torch.randn(1, 3, 32, 32)
    export(model, x, f"{work}/cnn.onnx")
    np.save(f"{work}/x1.npy", x.numpy())
    hillock(build, "run", f"{work}/cnn.onnx", "--input", f"x={work}/x1.npy", "--output-dir", f"{work}/out")
    got = np.load(f"{work}/out/y.npy").astype(np.float64)
    want = model.double()(x.double()).detach().numpy()
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    bench = hillock(build, "bench", f"{work}/cnn.onnx", "--json", "--seconds", "3")
    cuda = SimpleCNN().eval().cuda()
    xc = x.cuda()
    with torch.no_grad():
        theirs = gpu_ms(graphed(lambda: cuda(xc)))
    print(f"SimpleCNN b1 inference: error {error:.1e}; wall p50 {bench['p50_ms'] * 1e3:.1f} us (min {bench['min_ms'] * 1e3:.1f}), "
          f"pipelined {bench['pipelined_ms'] * 1e3:.1f} us; PyTorch CUDA graph, device only, {theirs * 1e3:.1f} us")


def matmul(n, precision):
    path = f"{work}/matmul{n}.onnx"
    a, b, c = (helper.make_tensor_value_info(v, TensorProto.FLOAT, [n, n]) for v in "abc")
    onnx.save(helper.make_model(helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "matmul", [a, b], [c]),
                                opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, n), dtype=np.float32), rng.standard_normal((n, n), dtype=np.float32)
    np.save(f"{work}/a.npy", x)
    np.save(f"{work}/b.npy", y)
    hillock(build, "run", path, "--input", f"a={work}/a.npy", "--input", f"b={work}/b.npy", "--output-dir", f"{work}/out", "--precision", precision)
    want = torch.from_numpy(x).cuda().double() @ torch.from_numpy(y).cuda().double()
    got = torch.from_numpy(np.load(f"{work}/out/c.npy")).cuda().double()
    error = float((got - want).norm() / want.norm())
    profile = hillock(build, "profile", path, "--json", "--precision", precision)
    rows = [r for r in profile["nodes"] if r["flops"]]
    us = sum(r["us"] for r in rows)
    xc, yc = torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda()
    if precision == "fast":
        xc, yc = xc.half(), yc.half()
    theirs = gpu_ms(lambda: xc @ yc) * 1e3
    print(f"GEMM {n}^3 {precision}: error {error:.1e}, {us:.1f} us, {2 * n ** 3 / us * 1e-6:.1f} TFLOP/s "
          f"[{', '.join(r['kernel'] for r in rows)}]; cuBLAS {theirs:.1f} us, {2 * n ** 3 / theirs * 1e-6:.1f} TFLOP/s")


def dispatch_cost(count):
    path = f"{work}/chain{count}.onnx"
    nodes = [helper.make_node("Softmax", [f"v{i}"], [f"v{i + 1}"], axis=-1) for i in range(count)]
    values = [helper.make_tensor_value_info(v, TensorProto.FLOAT, [64]) for v in ("v0", f"v{count}")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "chain", values[:1], values[1:]),
                                opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return hillock(build, "bench", path, "--json", "--seconds", "2")["pipelined_ms"] * 1e3


print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__)
print(hillock(build, "--version"))
steps = sys.argv[3].split(",") if len(sys.argv) > 3 else ["inference", "gemm", "dispatch"]
if "inference" in steps:
    inference()
if "gemm" in steps:
    matmul(4096, "strict")
    matmul(4096, "fast")
if "dispatch" in steps:
    short, long = dispatch_cost(100), dispatch_cost(1100)
    print(f"a dependent dispatch in replay: {(long - short) / 1000:.2f} us (1,100 Softmax against 100)")
