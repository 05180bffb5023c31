"""What the benches share: the command, fp32 without tf32, how PyTorch's side is timed, and the loader's order of samples."""
import gzip
import json
import pathlib
import subprocess
import sys
import time
import warnings

import numpy as np
import torch

# No file beside this one may stand for a package that transformers looks for.
sys.path[:] = [p for p in sys.path if pathlib.Path(p).resolve() != pathlib.Path(__file__).resolve().parent]
warnings.filterwarnings("ignore", module="torch.onnx")
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True


def hillock(build, *words, cores=None):
    """Output of the command, decoded where --json is among the words."""
    pin = ["taskset", "-c", cores] if cores else []
    out = subprocess.run([*pin, f"{build}/hillock", *words], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(" ".join(words) + ": " + out.stderr[-1000:])
    return json.loads(out.stdout) if "--json" in words else out.stdout


def gpu_ms(fn, seconds=1.0):
    """Median of event-timed calls, at least 10 of them, after half a second of warm-up."""
    start = time.time()
    while time.time() - start < 0.5:
        fn()
        torch.cuda.synchronize()
    times, start = [], time.time()
    while len(times) < 10 or (time.time() - start < seconds and len(times) < 200):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        fn()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return float(np.median(times))


def graphed(fn):
    """fn as the replay of a CUDA graph."""
    s = torch.cuda.Stream()
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        for _ in range(5):
            fn()
    torch.cuda.current_stream().wait_stream(s)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        fn()
    return g.replay


def copy_rate():
    """GB/s, read plus written, of a copy of 256 MiB."""
    x = torch.empty(2**26, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.nbytes / gpu_ms(lambda: y.copy_(x), 0.5) * 1e-6


def mnist_file(folder, name):
    """(path, array of bytes) of MNIST's test "images" or "labels", gzipped or not."""
    path = next(p for p in sorted(pathlib.Path(folder).iterdir()) if p.name.startswith(f"t10k-{name}"))
    data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return path, np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


# ---- the loader's permutations: Fisher and Yates with Philox4x32-10 of key seed and counter (n, 0, epoch, stream)

SPLIT, ORDER = 0x4C500001, 0x4C500002  # streams of train/loader.c


def draws(seed, stream, epoch, count):
    """For n = 0 .. count: a random 64-bit number."""
    c = [np.arange(count + 1, dtype=np.uint64), np.zeros(count + 1, np.uint64), np.full(count + 1, epoch, np.uint64),
         np.full(count + 1, stream, np.uint64)]
    key, mask = [seed & 0xFFFFFFFF, seed >> 32], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        half = np.uint64(32)
        c = [(q >> half) ^ c[1] ^ np.uint64(key[0]), q & mask, (p >> half) ^ c[3] ^ np.uint64(key[1]), p & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return (c[1] << np.uint64(32)) | c[0]


def permuted(samples, seed, epoch, stream=ORDER):
    """The samples in the order of an epoch."""
    out, r = list(samples), draws(seed, stream, epoch, len(samples))
    for n in range(len(out), 1, -1):
        k = int(r[n]) % n
        out[n - 1], out[k] = out[k], out[n - 1]
    return out


def split(count, part, seed):
    """Samples to train with, and that part of them which is held out."""
    held = sorted(permuted(range(count), seed, 0, SPLIT)[:int(count * part + 0.5)])
    return sorted(set(range(count)) - set(held)), held


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


class BertOutput(torch.nn.Module):
    """A transformers model that takes ids alone and gives one tensor."""

    def __init__(self, bert, output):
        super().__init__()
        self.bert, self.output = bert, output

    def forward(self, ids):
        return getattr(self.bert(input_ids=ids), self.output)


def inference_model(name):
    """A model of torchvision or transformers with random weights, and what makes its input for a batch."""
    torch.manual_seed(0)
    if name == "bert":
        from transformers import BertConfig, BertModel
        return BertOutput(BertModel(BertConfig()), "last_hidden_state").eval(), lambda b: torch.randint(0, 30000, (b, 128))
    if name == "simplecnn":
        return SimpleCNN().eval(), lambda b: torch.randn(b, 3, 32, 32)
    import torchvision
    model = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():  # statistics of a trained network are not 0 and 1
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.uniform_(-0.2, 0.2)
                m.running_var.uniform_(0.5, 1.5)
                m.weight.uniform_(0.7, 1.3)
        if name.startswith("vit"):  # torchvision starts with a head of zeros
            model.heads.head.weight.normal_(0, 0.02)
    return model, lambda b: torch.randn(b, 3, 224, 224)


def training_model(name, batch):
    """A model with ten classes, Dropout's probability 0 so that losses can be compared, and an input."""
    torch.manual_seed(0)
    if name == "bert":
        from transformers import BertConfig, BertForSequenceClassification
        config = BertConfig(num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        return BertOutput(BertForSequenceClassification(config), "logits").train(), torch.randint(0, 30000, (batch, 128))
    if name == "simplecnn":
        return SimpleCNN().train(), torch.randn(batch, 3, 32, 32)
    import torchvision
    return getattr(torchvision.models, name)(weights=None, num_classes=10).train(), torch.randn(batch, 3, 224, 224)


def train_step(build, work, path, x, y, *options):
    """What train_step printed: first words to the rest of their lines; a list of them under words that repeat."""
    np.save(f"{work}/x.npy", x.numpy())
    np.save(f"{work}/y.npy", y.numpy())
    out = subprocess.run([f"{build}/train_step", path, f"{work}/x.npy", f"{work}/y.npy", *options], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(f"train_step {path}: {out.stderr[-1000:]}")
    rows = {}
    for line in out.stdout.splitlines():
        word, _, rest = line.partition(" ")
        rows.setdefault(word, []).append(rest)
    return rows


def export(model, x, path, training=False):
    """By the TorchScript exporter; training keeps BatchNormalization and Dropout as they are."""
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17, training=mode,
                      do_constant_folding=not training, input_names=["x"], output_names=["y"])
