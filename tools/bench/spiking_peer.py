"""SpikingJelly's side of spiking.py: one backend in a process of its own, because some versions choose it at the start.

    python3 tools/bench/spiking_peer.py BACKEND WORK_DIR PART... [--seconds S] [--shapes T,N,F ...] [--tf32]

PART is kernels, or the name of a network whose weights and data spiking.py wrote to WORK_DIR. Prints a line of JSON for
each measurement. BACKEND is torch, cupy or triton: releases up to 0.0.0.0.14 know the first two as an argument of their
neurons, 2.0.0 the first and the last as SJ_LIF_CUDA_IMPLEMENTATION. Without a CUDA device torch runs on the CPU and is
timed by the clock.
"""
import argparse
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import time
import unittest.mock

import numpy as np
import torch
from common import gpu_ms

device = "cuda" if torch.cuda.is_available() else "cpu"
for missing in ("loguru", "torchvision", "matplotlib", "tqdm"):  # SpikingJelly imports them, its neurons need none
    if importlib.util.find_spec(missing) is None:
        sys.modules[missing] = unittest.mock.MagicMock(__spec__=importlib.machinery.ModuleSpec(missing, None))


def load(backend):
    """SpikingJelly with that backend for all neurons of this process."""
    if not hasattr(np, "int"):
        np.int = int  # 0.0.0.0.14 uses the alias that NumPy 1.24 dropped
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = backend or "auto"  # 2.0.0 reads it when it is imported
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    argument = "backend" in inspect.signature(neuron.LIFNode.__init__).parameters
    if backend and backend not in (("torch", "cupy") if argument else ("torch", "triton")):
        raise SystemExit(f"this SpikingJelly has no backend {backend}: see --spikingjelly of spiking.py")

    def lif():
        chosen = {"backend": backend or "torch"} if argument else {}
        return neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(), step_mode="m", **chosen).to(device)
    return functional, layer, lif


def clock_ms(fn, seconds, calls=10):
    """Median milliseconds of a call, of many that nobody waits for, after half a second."""
    times, start = [], time.time()
    while len(times) < 3 or time.time() - start < 0.5 + seconds:
        begin = time.time()
        for _ in range(calls):
            fn()
        if device == "cuda":
            torch.cuda.synchronize()
        if time.time() - start > 0.5 or len(times) < 3:
            times.append((time.time() - begin) * 1e3 / calls)
    return float(np.median(times))


def device_ms(fn, seconds):
    return gpu_ms(fn, seconds) if device == "cuda" else clock_ms(fn, seconds, 1)


def kernels_ms(fn, runs=10):
    """Device time of fn's kernels alone, one after the other."""
    if device != "cuda":
        return None
    fn()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
        for _ in range(runs):
            fn()
        torch.cuda.synchronize()
    return sum(e.self_device_time_total for e in p.key_averages()) / runs * 1e-3


def kernels(sj, shape, seconds):
    """A layer of neurons; the gradient of its spikes is allocated outside the timing."""
    functional, _, lif = sj
    node = lif()
    x, g = torch.randn(shape, device=device, requires_grad=True), torch.ones(shape, device=device)

    def both():
        functional.reset_net(node)
        node(x).backward(g)
        x.grad = None

    def forward():
        with torch.no_grad():
            functional.reset_net(node)
            node(x)
    times = (device_ms(both, seconds), kernels_ms(both), device_ms(forward, seconds), kernels_ms(forward))
    return dict(zip(("both", "both_kernels", "forward", "forward_kernels"), times))


def network(sj, name, weights):
    """spiking.py's networks, with its weights."""
    functional, layer, lif = sj
    parts = {"mlp": [("fc1", layer.Linear(784, 256)), "lif", ("fc2", layer.Linear(256, 10)), "lif"]}
    parts["conv"] = []
    for i in range(3):
        parts["conv"] += [(f"conv{i + 1}", layer.Conv2d(128 if i else 1, 128, 3, padding=1, bias=False)),
                          (f"conv{i + 1}.bn", layer.BatchNorm2d(128)), "lif"] + ([("", layer.MaxPool2d(2, 2))] if i < 2 else [])
    parts["conv"] += [("", layer.Flatten()), ("fc1", layer.Linear(6272, 512, bias=False)), "lif", ("fc2", layer.Linear(512, 10, bias=False)), "lif"]
    modules = []
    for part in parts[name]:
        modules.append(lif() if part == "lif" else part[1])
        if part != "lif" and part[0]:
            own = part[1].state_dict()
            part[1].load_state_dict({k: torch.from_numpy(weights[f"{part[0]}.{k}"]) if f"{part[0]}.{k}" in weights else v for k, v in own.items()})
    net = torch.nn.Sequential(*modules).to(device)
    functional.set_step_mode(net, "m")
    return net


def step(sj, name, work, seconds):
    """Losses of three steps, milliseconds of one, bytes of memory but for parameters and moments."""
    functional = sj[0]
    with np.load(f"{work}/{name}.npz") as file:
        weights = dict(file)
    x, y = (torch.from_numpy(weights.pop(k)) for k in ("x", "y"))
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
    model = network(sj, name, weights)
    # one launch for the whole update on a GPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device == "cuda")
    loss_fn, x, y = torch.nn.CrossEntropyLoss(), x.to(device), y.to(device)

    def one():
        functional.reset_net(model)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(model(x).mean(0), y)
        loss.backward()
        optimizer.step()
        return loss
    losses, kept = [one().item() for _ in range(3)], 3 * sum(p.nbytes for p in model.parameters())
    out = {"losses": losses, "ms": clock_ms(one, seconds), "memory": None}
    if device == "cuda":
        out["memory"] = torch.cuda.max_memory_allocated() - base - kept
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("work")
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--shapes", nargs="*", default=[])
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    sj = load(args.backend)
    torch.manual_seed(0)
    for part in args.parts:
        for shape in [tuple(map(int, s.split(","))) for s in args.shapes] if part == "kernels" else [None]:
            try:
                got = kernels(sj, shape, args.seconds) if shape else step(sj, part, args.work, args.seconds)
            except Exception as e:  # what one backend cannot do is said so, the rest is still wanted
                got = {"failed": repr(e)[:300]}
            print(json.dumps({"part": part, "shape": shape, **got}), flush=True)
            if device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
