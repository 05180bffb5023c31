"""Every row of issue 6 and of its anchors on one GPU, Hillock and its peers in one run.

    python3 tools/bench/matrix.py BUILD_DIR [WORK_DIR] [--parts gemm,conv,...] [--seconds 0.5] [--spikingjelly cupy=DIR]

Prints a line per row and precision: ours, the peers, the ratio of our time to each, and what it must be at most (for
products and convolutions: TFLOP/s at least). WORK_DIR/matrix.md is the table of docs/performance.md; parts that run one by
one, on one card and day, add to it. Peers are PyTorch's fp32, tf32 and 16-bit rows; the fastest of a class is meant,
channels-last or not, models and steps as CUDA graphs; of spiking rows SpikingJelly's cupy backend. Ours are device times
between two timestamps, theirs between two events. Errors are against fp64, those of PyTorch's fp32, tf32 and float16 beside
them; training steps compare their first loss with fp32's. BUILD_DIR holds hillock, test_gemm, train_step and neurons. ncnn is
no peer here: its wheel has neither these models nor a way to read ONNX.
"""
import argparse
import copy
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import onnx
import torch
from common import export, gpu_ms, graphed, hillock, inference_model, train_step, training_model
from onnx import TensorProto, helper, numpy_helper

MODELS = {"resnet18": (1, 64), "resnet50": (1, 64), "mobilenet_v2": (1, 64), "efficientnet_b0": (1, 64), "vit_b_16": (1, 64),
          "bert": (1, 32), "simplecnn": (1, 256)}
TRAINED = {"resnet50": 64, "resnet18": 64, "bert": 32, "simplecnn": 256}
# What the issue asks for: the most that ours / the peer's may be; "any": of the fastest of all classes.
INFERENCE = {("resnet50", 64): {"high": {"fp32": 0.65, "tf32": 1.6}, "fast": {"16-bit": 1.5}},
             ("bert", 32): {"high": {"fp32": 0.6}, "fast": {"16-bit": 1.3}},
             ("resnet50", 1): {"fast": {"any": 0.7}}, ("mobilenet_v2", 1): {"fast": {"any": 0.7}},
             ("efficientnet_b0", 1): {"fast": {"any": 0.7}}, ("bert", 1): {"fast": {"any": 0.75}},
             ("vit_b_16", 1): {"fast": {"any": 1.2}}}
TRAINING = {"resnet50": {"high": {"fp32": 0.5}, "fast": {"16-bit": 1.4}}, "bert": {"high": {"fp32": 0.55}, "fast": {"16-bit": 1.4}},
            "simplecnn": {"fast": {"16-bit": 0.6}}}
PARTS = ["gemm", "conv", "points", *MODELS, *(f"train-{name}" for name in TRAINED), "spiking", "spiking-conv"]
GROUPS = {"training": [f"train-{name}" for name in TRAINED], "batch1": [f"{name}-1" for name in MODELS]}

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("work", nargs="?", default="matrix-work")
parser.add_argument("--parts", "--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, training, batch1; a model's one "
                    "batch: resnet50-64")
parser.add_argument("--seconds", type=float, default=0.5)
parser.add_argument("--spikingjelly", default="", help="BACKEND=DIR: where the package lies, as spiking.py takes it")
args = parser.parse_args()
build, work = os.path.abspath(args.build), os.path.abspath(args.work)
os.makedirs(work, exist_ok=True)
F = torch.nn.functional
CLASSES = ("fp32", "tf32", "16-bit")
PRECISIONS = ("strict", "high", "fast")


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


# ---- the table

def this_run():
    return f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, {datetime.date.today()}"


def keep(work_row, ours, peers, must=None):
    """A row of the table; one of the same name in an earlier part of this card and day is replaced."""
    path = pathlib.Path(work, "matrix.json")
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("run") != this_run():
        known = {"run": this_run(), "rows": {}}
    known["rows"][work_row] = [ours, peers, must or ""]
    path.write_text(json.dumps(known))
    lines = [f"{known['run']}, `tools/bench/matrix.py`. Ours: strict / high / fast; peers: fp32 / tf32 / 16-bit.", "",
             "| work | ours | peers | must |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in known["rows"].items()]
    pathlib.Path(work, "matrix.md").write_text("\n".join(lines) + "\n")


def joined(values, names, form="{:.3g}"):
    return " / ".join(form.format(values[n]) if n in values else "–" for n in names)


def milliseconds(values, names):
    return joined(values, names, "{:.3f}") + " ms"


def verdicts(ms, peers, must):
    """Text of ratios, and of those that were asked for alone."""
    text, asked = "", []
    for name in peers:
        ratio = ms / peers[name]
        text += f"; {name} {peers[name]:.3f} ms ratio {ratio:.3f}"
        if name in must:
            word = "met" if ratio <= must[name] else "missed"
            text += f" must {must[name]}: {word}"
            asked.append(f"{must[name]} of {name}: {ratio:.2f}, {word}")
    return text, asked


def finish_row(title, times, peers, musts, note):
    """Prints a line per precision and keeps the row. times: precision -> milliseconds."""
    asked = []
    for precision, ms in times.items():
        must = {min(peers, key=peers.get) if k == "any" else k: v for k, v in musts.get(precision, {}).items()}
        text, words = verdicts(ms, peers, must)
        asked += [f"{precision} {w}" for w in words]
        print(f"{title} {precision}: {ms:.3f} ms" + text + note(precision), flush=True)
    keep(title, milliseconds(times, PRECISIONS), milliseconds(peers, CLASSES), "; ".join(asked))


# ---- products and convolutions

def gemm():
    for m, n, k in ((8192,) * 3, (4096,) * 3, (4096, 512, 14336), (1024,) * 3, (256,) * 3):
        a, b = torch.randn(m, k, device="cuda"), torch.randn(k, n, device="cuda")
        ah, bh, flops = a.half(), b.half(), 2.0 * m * n * k
        peers = {"fp32": measure(lambda: a @ b), "tf32": measure(lambda: a @ b, True), "16-bit": measure(lambda: ah @ bh)}
        del a, b, ah, bh
        torch.cuda.empty_cache()
        title, best, asked = f"GEMM {m}x{n}x{k}", {}, []
        for precision, word, must in (("strict", "f32", None), ("high", "high", 85), ("fast", "f16", 260)):
            for trans in ("NN", "NT") if word != "f32" and m == 8192 else ("NN",):
                words = [f"{build}/test_gemm", "bench", str(m), str(n), str(k), trans, word, "chosen"]
                line = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
                name, us, error = re.match(r"chosen: (.*?) +splits \d+ +([\d.]+) us .*error (\S+)", line).groups()
                rate = flops / float(us) * 1e-6
                best[precision] = max(rate, best.get(precision, 0))
                verdict = ""
                if must and m == 8192:
                    verdict = f" must {must}: {'met' if rate >= must else 'missed'}"
                    asked.append(f"{precision} {must}: {rate:.0f} {trans}, {'met' if rate >= must else 'missed'}")
                print(f"{title} {precision} {trans}: {rate:.1f} TFLOP/s" + verdict + verdicts(float(us) * 1e-3, peers, {})[0]
                      + f" [{name}] error {error}", flush=True)
        keep(title, joined(best, PRECISIONS) + " TFLOP/s",
             joined({c: flops / ms * 1e-9 for c, ms in peers.items()}, CLASSES) + " TFLOP/s", "; ".join(asked))


def conv_layer(n, channels, side, out, kernel, stride=1):
    x, w = torch.randn(n, channels, side, side, device="cuda"), torch.randn(out, channels, kernel, kernel, device="cuda")
    pad, last = kernel // 2, torch.channels_last
    run = lambda x, w: F.conv2d(x, w, padding=pad, stride=stride)
    xl, wl = x.to(memory_format=last), w.to(memory_format=last)
    xh, wh = xl.half(), wl.half()
    peers = {name: min(measure(lambda: run(x, w), name == "tf32"), measure(lambda: run(xl, wl), name == "tf32"))
             for name in ("fp32", "tf32")}
    peers["16-bit"] = measure(lambda: run(xh, wh))
    exact = run(x.double(), w.double())
    path = f"{work}/conv.onnx"
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    onnx.save(helper.make_model(helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[pad] * 4, strides=[stride] * 2)], "layer", [value("x", list(x.shape))],
        [value("y", None)], [numpy_helper.from_array(w.cpu().numpy(), "w")]), opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8), path)
    np.save(f"{work}/x.npy", x.cpu().numpy())
    flops = 2.0 * exact.numel() * channels * kernel**2
    title = f"conv {kernel}x{kernel} b{n} {channels} -> {out}, {side}x{side}" + (f" s{stride}" if stride > 1 else "")
    rates, asked = {}, []
    for precision, must in (("strict", None), ("high", 60), ("fast", 120)):
        hillock(build, "run", path, "--input", f"x={work}/x.npy", "--output-dir", f"{work}/out", "--precision", precision)
        error = error_of(torch.from_numpy(np.load(f"{work}/out/y.npy")).cuda(), exact)
        # Dispatches one by one, what changes layout or storage at the edges left out.
        nodes = hillock(build, "profile", path, "--json", "--runs", "10", "--copy-rate", "1", "--fma-rate", "1", "--precision",
                        precision)["nodes"]
        nodes = [n for n in nodes if n["where"] == "device"]
        kernels = [n for n in nodes if "conv" in n["kernel"] or "gemm" in n["kernel"] or "split" in n["kernel"]]
        ms = sum(n["us"] for n in kernels) * 1e-3
        if len(kernels) == len(nodes):
            ms = hillock(build, "bench", path, "--json", "--seconds", "0.2", "--precision", precision)["device_ms"]
        rates[precision] = flops / ms * 1e-9
        verdict = ""
        if must and kernel == 3 and n == 64:
            word = "met" if rates[precision] >= must else "missed"
            verdict = f" must {must}: {word}"
            asked.append(f"{precision} {must}: {word}")
        print(f"{title} {precision}: {ms * 1e3:.1f} us {rates[precision]:.1f} TFLOP/s{verdict}" + verdicts(ms, peers, {})[0]
              + f" [{', '.join(n['kernel'] for n in kernels)}] error {error:.1e}", flush=True)
    keep(title, joined(rates, PRECISIONS) + " TFLOP/s", joined({c: flops / t * 1e-9 for c, t in peers.items()}, CLASSES) + " TFLOP/s",
         "; ".join(asked))


def conv():
    for channels, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        conv_layer(64, channels, side, channels, 3)
    conv_layer(1, 64, 56, 64, 3)


def points():
    for channels, side, out in ((256, 56, 64), (1024, 14, 256), (512, 7, 2048)):
        conv_layer(64, channels, side, out, 1)
    conv_layer(64, 3, 224, 64, 7, 2)


# ---- models

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


def model(name, batch):
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
    times, errors = {}, {}
    for precision in PRECISIONS:
        words = ["--precision", precision]
        hillock(build, "run", path, "--input", f"x={work}/x.npy", "--output-dir", f"{work}/out", *words)
        errors[precision] = error_of(torch.from_numpy(np.load(f"{work}/out/y.npy")).cuda(), want)
        times[precision] = hillock(build, "bench", path, "--json", "--seconds", str(args.seconds), *words)["device_ms"]
    finish_row(f"{name} b{batch}", times, peers, INFERENCE.get((name, batch), {}),
               lambda p: f" error {errors[p]:.1e}{theirs}")
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


def training(name, batch):
    network, x = training_model(name, batch)
    y = torch.randint(0, 10, (batch,))
    path = f"{work}/{name}.onnx"
    export(copy.deepcopy(network), x, path, True)
    forms = (False, True) if x.dim() == 4 else (False,)
    peers = {kind: min(captured(network, x, y, kind, last) for last in forms) for kind in CLASSES}
    with torch.no_grad():
        loss = float(F.cross_entropy(copy.deepcopy(network).cuda()(x.cuda()), y.cuda()))
    times, losses = {}, {}
    for precision in PRECISIONS:
        rows = train_step(build, work, path, x, y, "--seconds", str(args.seconds), "--precision", precision)
        times[precision], losses[precision] = float(rows["device_ms"][0]), float(rows["loss"][0])
    finish_row(f"{name} b{batch} training step", times, peers, TRAINING.get(name, {}),
               lambda p: f" first loss {losses[p]:.6f} (PyTorch fp32 {loss:.6f})")
    os.remove(path)


# ---- spiking: spiking.py measures both sides

def spiking_lines(only, *words, peer=True):
    """What spiking.py prints of ours and of SpikingJelly's cupy backend: two texts; no second one: it could not run."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve().parent / "spiking.py"), build, f"{work}/spiking", "--only", only,
               "--backends", "cupy" if peer else "", "--spikingjelly", args.spikingjelly, "--seconds", str(args.seconds), *words]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr[-500:])
    print(out.stdout, end="", flush=True)
    return [l for l in out.stdout.splitlines() if re.match("LIF|SNN", l)], [l for l in out.stdout.splitlines() if "cupy:" in l]


def spiking():
    for shape in ("16x32x65536", "16x32x1048576", "4x32x1048576"):
        own, peer = spiking_lines("kernels", "--shapes", shape)
        both, forward = re.search(r"backward ([\d.]+) ms.*forward ([\d.]+) ms", own[0]).groups()
        theirs = "–" if not peer else "{} / {} ms".format(*re.search(r"cupy: ([\d.]+) ms.*forward ([\d.]+) ms", peer[0]).groups())
        keep(f"LIF {shape.replace('x', ' x ')}, forward + backward / forward", f"{both} / {forward} ms (strict)", f"cupy {theirs}")


def snn_conv():
    times, peers = {}, {}
    for precision in PRECISIONS:  # SpikingJelly compiles its kernels in each process, so it runs once in fp32 and once in tf32
        own, peer = spiking_lines("conv", "--precision", precision, *(["--tf32"] if precision == "high" else []),
                                  peer=precision != "fast")
        times[precision] = float(re.search(r"device ([\d.]+)", own[0]).group(1))
        found = re.search(r"cupy: ([\d.]+) ms", peer[0]) if peer else None
        if found:
            kind = "fp32" if precision == "strict" else "tf32"
            peers[kind] = float(found.group(1))
    musts = {p: {"tf32": 0.25} for p in PRECISIONS}
    finish_row("SNN-conv T4 N64 training step (peer: cupy)", times, peers, musts, lambda p: "")


def run_part(part):
    name, _, batch = part.rpartition("-")
    if part in MODELS:
        for b in MODELS[part]:
            model(part, b)
            torch.cuda.empty_cache()
    elif name in MODELS and batch.isdigit():
        model(name, int(batch))
    elif part.startswith("train-") and part[6:] in TRAINED:
        training(part[6:], TRAINED[part[6:]])
    else:
        {"gemm": gemm, "conv": conv, "points": points, "spiking": spiking, "spiking-conv": snn_conv}[part]()


print(this_run(), hillock(build, "--version").strip(), flush=True)
failed = False
for part in [p for word in args.parts.split(",") for p in GROUPS.get(word, [word])]:
    begin = datetime.datetime.now()
    try:
        run_part(part)
    except Exception as e:  # the other rows are still wanted
        print(part, "FAILED:", repr(e)[:500], flush=True)
        failed = True
    torch.cuda.empty_cache()
    print(f"({part}: {(datetime.datetime.now() - begin).seconds} s)", flush=True)
sys.exit(failed)
