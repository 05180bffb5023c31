"""The spine's numbers on one GPU, Hillock and PyTorch in one run, outputs compared first.

    python3 tools/bench/spine.py BUILD_DIR [WORK_DIR]

Needs torch with CUDA, onnx and numpy beside a Hillock build (the command and train_step). Prints a table; a ratio is
ours / theirs, and no ratio is printed where outputs differ by more than the stated bound.
"""
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

build = os.path.abspath(sys.argv[1])
work = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else "spine-work")
os.makedirs(work, exist_ok=True)
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True


def hillock(*args):
    out = subprocess.run([f"{build}/hillock", *args], capture_output=True, text=True)
    if out.returncode:
        print("FAILED:", " ".join(args), out.stderr[-2000:])
        return None
    return json.loads(out.stdout) if "--json" in args else out.stdout


class SimpleCNN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.pool, self.fc1, self.fc2 = nn.MaxPool2d(2, 2), nn.Linear(4096, 256), nn.Linear(256, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


def export(model, x, path, training):
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17, training=mode,
                      do_constant_folding=not training, input_names=["x"], output_names=["y"])


def gpu_ms(fn, repeats=50):
    """Median of event-timed calls after half a second of warm-up."""
    import time
    start = time.time()
    while time.time() - start < 0.6:
        fn()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        fn()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return float(np.median(times))


def graphed(fn):
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        for _ in range(5):
            fn()
    torch.cuda.current_stream().wait_stream(s)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        fn()
    return g.replay


def inference():
    torch.manual_seed(0)
    model = SimpleCNN().eval()
    x = torch.randn(1, 3, 32, 32)
    export(model, x, f"{work}/cnn.onnx", False)
    np.save(f"{work}/x1.npy", x.numpy())
    hillock("run", f"{work}/cnn.onnx", "--input", f"x={work}/x1.npy", "--output-dir", f"{work}/out")
    got = np.load(f"{work}/out/y.npy").astype(np.float64)
    want = model.double()(x.double()).detach().numpy()
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    bench = hillock("bench", f"{work}/cnn.onnx", "--json", "--seconds", "3")
    cuda = SimpleCNN().eval().cuda()
    xc = x.cuda()
    with torch.no_grad():
        theirs = gpu_ms(graphed(lambda: cuda(xc)))
    print(f"SimpleCNN b1 inference: error {error:.1e}; wall p50 {bench['p50_ms'] * 1e3:.1f} us (min {bench['min_ms'] * 1e3:.1f}), "
          f"pipelined {bench['pipelined_ms'] * 1e3:.1f} us; PyTorch CUDA graph, device only, {theirs * 1e3:.1f} us")


def train_peer(x, y, channels_last, capture):
    model = SimpleCNN().cuda().train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=capture)
    loss_fn = torch.nn.CrossEntropyLoss()

    def step():
        opt.zero_grad(set_to_none=False)
        loss_fn(model(x), y).backward()
        opt.step()
    return gpu_ms(graphed(step) if capture else step)


def batch_without_tie():
    """Random weights and data whose 65,536 ReLU inputs of fc1 are all away from 0: one that fp32 rounding turns over
    would move fc1's gradient by 0.7 % and say nothing. (The 8 million decisions before are left to chance, for both.)"""
    for seed in range(1, 100):
        torch.manual_seed(seed)
        model = SimpleCNN().train()
        x, y = torch.randn(256, 3, 32, 32), torch.randint(0, 10, (256,))
        exact = SimpleCNN().double().train()
        exact.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in model.state_dict().items()})
        exact.fc2 = torch.nn.Identity()
        least = []
        exact.fc1.register_forward_hook(lambda m, i, z: least.append(z.detach().abs().min().item()))
        exact(x.double())
        if least[0] > 5e-6:
            return model, x, y
    raise RuntimeError("no such seed")


def training():
    model, x, y = batch_without_tie()
    export(model, x, f"{work}/train.onnx", True)
    model.train()
    np.save(f"{work}/x256.npy", x.numpy())
    np.save(f"{work}/y256.npy", y.numpy())
    os.makedirs(f"{work}/grads", exist_ok=True)
    out = subprocess.run([f"{build}/train_step", f"{work}/train.onnx", f"{work}/x256.npy", f"{work}/y256.npy", f"{work}/grads", "3"],
                         capture_output=True, text=True)
    print(out.stdout.strip().replace("\n", "; "), out.stderr.strip())
    exact = SimpleCNN().double().train()
    exact.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    loss = torch.nn.functional.cross_entropy(exact(x.double()), y)
    loss.backward()
    single = SimpleCNN().cuda().train()
    single.load_state_dict(model.state_dict())
    torch.nn.functional.cross_entropy(single(x.cuda()), y.cuda()).backward()
    errors, norms, their_errors = 0.0, 0.0, 0.0
    for (name, p), q in zip(exact.named_parameters(), single.parameters()):
        g = np.load(f"{work}/grads/{name}.npy").astype(np.float64)
        errors += float(((g - p.grad.numpy()) ** 2).sum())
        their_errors += float(((q.grad.cpu().double() - p.grad) ** 2).sum())
        norms += float((p.grad.numpy() ** 2).sum())
    lines = dict(l.split(" ", 1) for l in out.stdout.splitlines() if " " in l)
    difference = abs(float(lines["loss"]) - float(loss.detach()))
    error, their_error = (errors / norms) ** 0.5, (their_errors / norms) ** 0.5
    # 8.4 million ReLU and max-pool decisions: those that rounding turns over move both fp32 gradients away from fp64's.
    bound = max(1e-5, 3 * their_error)
    ours = min(float(l.split()[1]) for l in out.stdout.splitlines() if l.startswith("step "))
    xc, yc = x.cuda(), y.cuda()
    peers = {"eager": train_peer(xc, yc, False, False), "captured": train_peer(xc, yc, False, True),
             "captured channels-last": train_peer(xc, yc, True, True)}
    print(f"SimpleCNN b256 training step: loss differs by {difference:.1e}, gradients by {error:.1e} (PyTorch fp32's by {their_error:.1e}) from fp64; ours {ours:.4f} ms")
    for name, ms in peers.items():
        ratio = f"{ours / ms:.3f}" if error <= bound and difference <= 1e-4 else "not comparable"
        print(f"    PyTorch fp32 {name}: {ms:.4f} ms, ratio {ratio}")


def matmul(n, precision):
    path = f"{work}/matmul{n}.onnx"
    a, b, c = (helper.make_tensor_value_info(v, TensorProto.FLOAT, [n, n]) for v in "abc")
    onnx.save(helper.make_model(helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "matmul", [a, b], [c]),
                                opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, n), dtype=np.float32), rng.standard_normal((n, n), dtype=np.float32)
    np.save(f"{work}/a.npy", x)
    np.save(f"{work}/b.npy", y)
    hillock("run", path, "--input", f"a={work}/a.npy", "--input", f"b={work}/b.npy", "--output-dir", f"{work}/out", "--precision", precision)
    want = torch.from_numpy(x).cuda().double() @ torch.from_numpy(y).cuda().double()
    got = torch.from_numpy(np.load(f"{work}/out/c.npy")).cuda().double()
    error = float((got - want).norm() / want.norm())
    profile = hillock("profile", path, "--json", "--precision", precision)
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
    return hillock("bench", path, "--json", "--seconds", "2")["pipelined_ms"] * 1e3


print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__)
print(hillock("--version"))
steps = sys.argv[3].split(",") if len(sys.argv) > 3 else ["inference", "training", "gemm", "dispatch"]
if "inference" in steps:
    inference()
if "training" in steps:
    training()
if "gemm" in steps:
    matmul(4096, "strict")
    matmul(4096, "fast")
if "dispatch" in steps:
    short, long = dispatch_cost(100), dispatch_cost(1100)
    print(f"a dependent dispatch in replay: {(long - short) / 1000:.2f} us (1,100 Softmax against 100)")
