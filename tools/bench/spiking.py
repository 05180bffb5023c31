"""Spiking networks on one GPU, Hillock and SpikingJelly in one run, with the losses of three steps of both.

    python3 tools/bench/spiking.py BUILD_DIR [WORK_DIR] [--only kernels,mlp,conv] [--backends torch,cupy,triton] [--profile]
        [--spikingjelly cupy=DIR,...] [--precision strict|high|fast] [--tf32]

kernels: a layer of LIF neurons (tau 2, ATan), forward and with BPTT. Ours is device time between two timestamps around
the recording (BUILD_DIR/neurons). SpikingJelly's is time between two events, the gradient of the spikes allocated
before, and the sum of its kernels alone from PyTorch's profiler.
mlp, conv: whole training steps with AdamW, wall time, pipelined: ours with the upload of each batch
(BUILD_DIR/train_step), theirs with the batch on the device. Memory is (peak - parameters - moments) per neuron and step
of time: ours the most device memory at once, theirs torch.cuda.max_memory_allocated.
fp32 without tf32 on both sides, unless --precision (ours) or --tf32 (theirs) says otherwise; x, gradients and potentials are fp32, spikes fp32 zeros and ones, which is what the next
convolution or product reads.
SpikingJelly 2.0.0 has the backends torch and triton, 0.0.0.0.14 torch and cupy. --spikingjelly names the folder that
holds the package for a backend where it is not the one that Python finds: `pip install --no-deps --target DIR
spikingjelly==0.0.0.0.14` and `--spikingjelly cupy=DIR`. A backend that cannot run is said so.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import torch
from common import copy_rate
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("work", nargs="?", default="spiking-work")
parser.add_argument("--only", default="kernels,mlp,conv")
parser.add_argument("--backends", default="torch,cupy,triton")
parser.add_argument("--spikingjelly", default="", help="BACKEND=DIR,...: where the package lies")
parser.add_argument("--seconds", default="1")
parser.add_argument("--shapes", default="16x32x65536,16x32x1048576,4x32x1048576", help="of kernels: T x N x features")
parser.add_argument("--batch", type=int, help="of whole steps, for slow devices")
parser.add_argument("--profile", action="store_true", help="print every dispatch of our steps")
parser.add_argument("--precision", default="strict", help="of our steps")
parser.add_argument("--tf32", action="store_true", help="SpikingJelly's products and convolutions in tf32")
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
cuda = torch.cuda.is_available()
torch.manual_seed(0)

# What the issue asks for: milliseconds on an H200 (forward and backward, forward), whose copies read and write 4,300 GB/s;
# on other cards as much more as theirs take longer. Or ratios to cupy.
KERNELS = {(16, 32, 65536): (0.22, None), (16, 32, 1048576): (2.95, 1.15)}
H200 = 4300
STEPS = {"mlp": 0.08, "conv": 0.4}
MEMORY = 0.5


def ours(*words):
    out = subprocess.run([f"{build}/{words[0]}", *map(str, words[1:])], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(" ".join(map(str, words)) + ": " + out.stderr[-1000:])
    return out.stdout


def verdict(value, bound):
    return "" if bound is None else f", asked {bound}: {'met' if value <= bound else 'missed'}"


def peers(parts, shapes):
    """What SpikingJelly's backends measure: {backend: [results]}, with the sentence of those that could not start."""
    folders = dict(word.split("=", 1) for word in args.spikingjelly.split(",") if word)
    script = pathlib.Path(__file__).resolve().parent / "spiking_peer.py"
    results = {}
    for backend in filter(None, args.backends.split(",")):
        paths = [os.path.abspath(folders[backend])] if backend in folders else []
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths + [p for p in [os.environ.get("PYTHONPATH")] if p]))
        words = [sys.executable, script, backend, work, *parts, "--seconds", args.seconds] + (["--tf32"] if args.tf32 else [])
        if shapes:
            words += ["--shapes", *(",".join(map(str, s)) for s in shapes)]
        out = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=env)
        results[backend] = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
        if out.returncode:
            results[backend].append({"part": None, "failed": out.stderr.strip()[-300:]})
    return results


def theirs(results, part, shape=None):
    """(backend, measurement) of those that ran; says which did not."""
    for backend, rows in results.items():
        for row in rows:
            if row["part"] not in (None, part) or (row["part"] and row["shape"] != shape):
                continue
            if "failed" in row:
                print(f"    SpikingJelly {backend} failed: {row['failed']}", flush=True)
            else:
                yield backend, row


def kernels_text(ms, row):
    text = lambda kind, own: f"{row[kind]:.4f} ms, ratio {own / row[kind]:.3f}" + (
        f" (kernels {row[kind + '_kernels']:.4f}, {own / row[kind + '_kernels']:.3f})" if row[kind + "_kernels"] else "")
    return f"{text('both', ms[0])}; forward {text('forward', ms[1])}"


def kernels(shape):
    """Prints what we take; milliseconds forward and backward, forward."""
    rate = copy_rate() if cuda else H200
    print(f"copy: {rate:.0f} GB/s read + written; bounds are {H200 / rate:.2f} times those of an H200")
    lines = dict(l.rsplit(" ms", 1)[0].rsplit(" ", 1) for l in ours("neurons", *shape, args.seconds).splitlines() if " ms" in l)
    lines = {k: float(v) for k, v in lines.items()}
    both, forward = lines.pop("forward and backward"), lines.pop("forward")
    asked = [a and round(a * max(H200 / rate, 1), 3) for a in KERNELS.get(shape, (None, None))]
    count = shape[0] * shape[1] * shape[2]
    print(f"LIF T{shape[0]} N{shape[1]} F{shape[2]}: forward + backward {both:.4f} ms ({20 * count / both * 1e-6:.0f} GB/s)"
          + verdict(both, asked[0]) + f"; forward {forward:.4f} ms ({8 * count / forward * 1e-6:.0f} GB/s)"
          + verdict(forward, asked[1]) + "; " + ", ".join(f"{k} {v:.4f}" for k, v in lines.items()), flush=True)
    return both, forward


class Net:
    """An ONNX graph under construction, with the weights that SpikingJelly's copy gets too."""

    def __init__(self, steps, batch, shape):
        self.nodes, self.weights, self.last, self.shape = [], {}, "x", shape
        self.steps, self.batch, self.input = steps, batch, [steps, batch, *shape]
        self.neurons, self.number = 0, 0
        self.reshape([-1, *shape])

    def add(self, op, inputs=(), domain="", **attrs):
        self.number += 1
        name = f"{op.lower()}{self.number}"
        self.nodes.append(helper.make_node(op, [self.last, *inputs], [name], name=name, domain=domain, **attrs))
        self.last = name

    def constant(self, value):
        name = f"c{self.number}"
        self.weights[name] = np.asarray(value, np.int64)
        return name

    def weight(self, name, *shape, spread=None):
        bound = 3 / np.sqrt(np.prod(shape[1:])) if spread is None else spread  # enough for spikes in the last layer
        self.weights[name] = ((torch.rand(*shape) * 2 - 1) * bound).numpy()
        return name

    def reshape(self, shape):
        self.add("Reshape", [self.constant(shape)])

    def neuron(self):
        self.reshape([self.steps, -1, *self.shape])
        self.add("Neuron", domain="ai.hillock", steps=self.steps, kind="LIF", tau=2.0, decay_input=0, surrogate="ATan", alpha=2.0)
        self.neurons += int(np.prod(self.shape))
        self.reshape([-1, *self.shape])

    def linear(self, name, out, bias):
        into = int(np.prod(self.shape))
        if len(self.shape) > 1:
            self.reshape([-1, into])
        inputs = [self.weight(f"{name}.weight", out, into)]
        self.add("Gemm", inputs + ([self.weight(f"{name}.bias", out, spread=1 / into ** 0.5)] if bias else []), transB=1)
        self.shape = [out]
        self.neuron()

    def conv(self, name, out, pool):
        c, h, w = self.shape
        self.add("Conv", [self.weight(f"{name}.weight", out, c, 3, 3)], pads=[1, 1, 1, 1])
        for k, v in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.weights[f"{name}.bn.{k}"] = np.full(out, v, np.float32)
        self.add("BatchNormalization", [f"{name}.bn.{k}" for k in ("weight", "bias", "running_mean", "running_var")])
        self.shape = [out, h, w]
        self.neuron()
        if pool:
            self.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            self.shape = [out, h // 2, w // 2]

    def neuron_steps(self):
        return self.steps * self.batch * self.neurons

    def save(self, path):
        self.reshape([self.steps, -1, *self.shape])
        self.nodes.append(helper.make_node("ReduceMean", [self.last, self.constant([0])], ["rates"], keepdims=0))
        value = helper.make_tensor_value_info
        graph = helper.make_graph(self.nodes, "spiking", [value("x", TensorProto.FLOAT, self.input)],
                                  [value("rates", TensorProto.FLOAT, [self.batch, *self.shape])],
                                  [numpy_helper.from_array(v, k) for k, v in self.weights.items()])
        domains = [helper.make_opsetid("", 18), helper.make_opsetid("ai.hillock", 1)]
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)


def mlp():
    net = Net(16, args.batch or 32, [784])
    net.linear("fc1", 256, True)
    net.linear("fc2", 10, True)
    return net, (torch.rand(*net.input) < 0.3).float()


def conv():
    net = Net(4, args.batch or 64, [1, 28, 28])
    for i in range(3):
        net.conv(f"conv{i + 1}", 128, i < 2)
    net.linear("fc1", 512, False)
    net.linear("fc2", 10, False)
    return net, torch.rand(*net.input)


def build_network(name):
    net, x = {"mlp": mlp, "conv": conv}[name]()
    y = torch.randint(0, 10, (net.batch,))
    net.save(f"{work}/{name}.onnx")
    np.save(f"{work}/{name}-x.npy", x.numpy())
    np.save(f"{work}/{name}-y.npy", y.numpy())
    np.savez(f"{work}/{name}.npz", x=x.numpy(), y=y.numpy(), **net.weights)
    return net


def text(values):
    return ", ".join(f"{v:.5f}" for v in values)


def step(name, net):
    """Prints what we take; milliseconds of a step, bytes per neuron and step of time."""
    out = ours("train_step", f"{work}/{name}.onnx", f"{work}/{name}-x.npy", f"{work}/{name}-y.npy", "--seconds", args.seconds,
               "--precision", args.precision,
               *(["--profile"] if args.profile else []))
    lines = [l.split() for l in out.splitlines() if l]
    value = lambda name: float(next(l[1] for l in lines if l[0] == name))
    losses = [float(l[1]) for l in lines if l[0] == "loss"]
    ms, peak = value("pipelined_ms"), value("memory_mib") * 2 ** 20
    trained = [v for k, v in net.weights.items() if v.dtype == np.float32 and "running" not in k]
    memory = (peak - 3 * sum(v.nbytes for v in trained)) / net.neuron_steps()
    print(f"SNN-{name} T{net.steps} N{net.batch}, {net.neurons} neurons: {ms:.4f} ms a step (device {value('device_ms'):.4f}), losses {text(losses)}, "
          f"{memory:.2f} bytes per neuron and step of time (peak {peak / 2 ** 20:.1f} MiB)", flush=True)
    if args.profile:
        print("\n".join(l for l in out.splitlines() if l.startswith(("dispatch", "plan"))))
    return ms, memory


def compare_step(name, net, own, results):
    ms, memory = own
    for backend, row in theirs(results, name):
        bound, half = (STEPS[name], MEMORY) if backend == "cupy" else (None, None)
        line = f"    SpikingJelly {backend}: {row['ms']:.4f} ms, losses {text(row['losses'])}, ratio {ms / row['ms']:.3f}{verdict(ms / row['ms'], bound)}"
        if row["memory"] is not None:
            per = row["memory"] / net.neuron_steps()
            line += f"; memory {per:.2f} bytes, ratio {memory / per:.2f}{verdict(memory / per, half)}"
        print(line, flush=True)


def main():
    parts, shapes = args.only.split(","), [tuple(map(int, s.split("x"))) for s in args.shapes.split(",")]
    if "kernels" not in parts:
        shapes = []
    print(torch.cuda.get_device_name(0) if cuda else "no CUDA device: SpikingJelly's times are a CPU's", "PyTorch", torch.__version__)
    nets = {name: build_network(name) for name in parts if name != "kernels"}
    results = peers(parts, shapes)
    for shape in shapes:
        own = kernels(shape)
        for backend, row in theirs(results, "kernels", list(shape)):
            print(f"    SpikingJelly {backend}: {kernels_text(own, row)}", flush=True)
    for name, net in nets.items():
        compare_step(name, net, step(name, net), results)


main()
