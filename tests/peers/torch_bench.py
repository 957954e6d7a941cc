"""PyTorch eager on the shapes that `deno task bench` measures, as JSON or tables: products, attention, SFT and DPO steps.

Written for Python 3.11 and torch 2.15.0; float32 throughout with TF32 off, no compilation, no autocast:

    python tests/peers/torch_bench.py --shape gpt2-124m [--device cuda] [--samples 5] [--steps 10] [--markdown]

The model is the same Llama as Keel's: RMSNorm, rotary positions, SwiGLU, no bias, untied head, the same batch of random
tokens with one prompt token a sequence. A step is forward, backward, clipping at norm 1 and AdamW (torch's fused one on
a GPU). DPO has cached reference log-probs, as Keel's "dpo, cached reference" has. Attention goes through
scaled_dot_product_attention: `attention` in the output names its backends one by one, as far as they take float32; the
steps take whichever PyTorch chooses. Times are wall times around so many steps and one synchronisation, median, least
and greatest over the samples; peakBytes is what the allocator held at most.
"""

import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# As train/bench/shapes.ts has them: layers, hidden, heads, mlp, vocabulary, batch, tokens.
SHAPES = {
    "tiny": (1, 32, 2, 64, 128, 2, 32),
    "bench": (4, 128, 4, 356, 512, 8, 128),
    "gpt2-124m": (12, 768, 12, 2048, 50257, 8, 1024),
    "distilgpt2": (6, 768, 12, 2048, 50257, 1, 512),
    "gpt2-medium": (24, 1024, 16, 2736, 50257, 1, 512),
}
BETA = 0.1


class RmsNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Layer(nn.Module):
    def __init__(self, hidden, heads, mlp):
        super().__init__()
        self.heads = heads
        self.input_norm, self.post_norm = RmsNorm(hidden), RmsNorm(hidden)
        linear = lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False)
        self.q, self.k, self.v, self.o = (linear(hidden, hidden) for _ in range(4))
        self.gate, self.up, self.down = linear(hidden, mlp), linear(hidden, mlp), linear(mlp, hidden)

    def forward(self, h, cos, sin):
        batch, tokens, hidden = h.shape
        split = lambda x: x.view(batch, tokens, self.heads, -1).transpose(1, 2)
        x = self.input_norm(h)
        q, k, v = rotate(split(self.q(x)), cos, sin), rotate(split(self.k(x)), cos, sin), split(self.v(x))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.o(attended.transpose(1, 2).reshape(batch, tokens, hidden))
        y = self.post_norm(h)
        return h + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin


class Llama(nn.Module):
    def __init__(self, layers, hidden, heads, mlp, vocabulary, tokens):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, mlp) for _ in range(layers))
        self.norm = RmsNorm(hidden)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        dim = hidden // heads
        angles = torch.outer(torch.arange(tokens), 10000 ** (-torch.arange(0, dim, 2) / dim))
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        """Log-probability of every token but the first, [B, T - 1]."""
        h = self.embed(ids)
        for layer in self.layers:
            h = layer(h, self.cos, self.sin)
        logits = self.head(self.norm(h[:, :-1]))
        return -F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def summary(samples):
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}


class Timer:
    def __init__(self, device, samples):
        self.device, self.samples = device, samples

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ms(self, run, count):
        """Of one call, over samples of `count` calls; the first sample is the warm-up."""
        times = []
        for _ in range(self.samples + 1):
            start = time.perf_counter()
            for _ in range(count):
                run()
            self.wait()
            times.append((time.perf_counter() - start) * 1000 / count)
        return summary(times[1:])


def bench_matmul(timer, size, count):
    a, b = (torch.randn(size, size, device=timer.device) for _ in range(2))
    ms = timer.ms(lambda: a @ b, count)
    return {"size": size, "ms": ms, "gflops": 2 * size**3 / ms["median"] / 1e6}


def bench_attention(timer, shape, count):
    """Forward and backward of one layer's attention; 4 D operations forward and 10 D backward a pair that meets."""
    _, hidden, heads, _, _, batch, tokens = shape
    size = (batch, heads, tokens, hidden // heads)
    q, k, v = (torch.randn(size, device=timer.device, requires_grad=True) for _ in range(3))
    upstream = torch.randn(size, device=timer.device)
    flops = 14 * hidden * batch * tokens * (tokens + 1) / 2
    found = {}
    for backend in (SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION):
        def run():
            with sdpa_kernel(backend):
                out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.grad(out, (q, k, v), upstream)

        try:
            ms = timer.ms(run, count)
            found[backend.name] = {"ms": ms, "gflops": flops / ms["median"] / 1e6}
        except RuntimeError as error:
            found[backend.name] = {"refused": str(error).splitlines()[0]}
    return found


def bench_step(timer, kind, shape, count):
    layers, hidden, heads, mlp, vocabulary, batch, tokens = shape
    torch.manual_seed(1)
    model = Llama(layers, hidden, heads, mlp, vocabulary, tokens).to(timer.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=timer.device.type == "cuda")
    sequences = batch if kind == "sft" else 2 * batch
    ids = torch.randint(vocabulary, (sequences, tokens), device=timer.device)
    reference = None
    if kind == "dpo":
        with torch.no_grad():
            reference = model(ids).sum(-1)
    losses = []

    def run():
        optimizer.zero_grad(set_to_none=True)
        logps = model(ids)
        if kind == "sft":
            loss = -logps.mean()
        else:
            chosen, rejected = (logps.sum(-1) - reference).chunk(2)
            loss = -F.logsigmoid(BETA * (chosen - rejected)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())

    if timer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ms = timer.ms(run, count)
    first, last = losses[0].item(), losses[-1].item()
    expected = math.log(vocabulary) if kind == "sft" else math.log(2)
    if abs(first - expected) > 0.1 * expected or not last < first:
        raise RuntimeError(f"Cannot measure {kind}: expected a loss falling from {expected}, found {first} to {last}")
    peak = torch.cuda.max_memory_allocated() if timer.device.type == "cuda" else None
    return {
        "kind": kind,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sequences": sequences,
        "tokens": sequences * tokens,
        "ms": ms,
        "tokensPerSecond": sequences * tokens / ms["median"] * 1000,
        "peakBytes": peak,
    }


def markdown(report):
    rows = lambda table: "".join("| " + " | ".join(str(cell) for cell in row) + " |\n" for row in table)
    number = lambda value: f"{value:.4g}"
    spread = lambda ms: [number(ms[key]) for key in ("median", "min", "max")]
    product = report["matmul"]
    text = f"- torch {report['torch']}, CUDA {report['cuda']}, {report['device']}; float32, TF32 off\n"
    text += f"- matmul {product['size']}^3: {number(product['gflops'])} GFLOP/s\n"
    head = ["ms median", "min", "max"]
    for name, entry in report["shapes"].items():
        steps = [["step", *head, "tokens/s", "peak MiB"], ["---", *["---:"] * 5]]
        for step in entry["steps"]:
            if "failed" in step:
                steps.append([step["kind"], step["failed"], *["-"] * 4])
                continue
            peak = "-" if step["peakBytes"] is None else number(step["peakBytes"] / 2**20)
            steps.append([step["kind"], *spread(step["ms"]), round(step["tokensPerSecond"]), peak])
        attention = [["attention, forward and backward", *head, "GFLOP/s"], ["---", *["---:"] * 4]]
        for backend, found in entry["attention"].items():
            refused = [found.get("refused"), *["-"] * 3]
            attention.append(
                [backend, *(refused if "refused" in found else [*spread(found["ms"]), number(found["gflops"])])]
            )
        text += f"\n{name}:\n\n{rows(steps)}\n{rows(attention)}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--matmul", type=int, default=4096)
    parser.add_argument("--markdown", action="store_true", help="tables instead of JSON")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    timer = Timer(device, arguments.samples)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": name,
        "tf32": False,
        "matmul": bench_matmul(timer, arguments.matmul, arguments.steps),
        "shapes": {},
    }
    for shape_name in arguments.shape or ["gpt2-124m"]:
        shape = SHAPES[shape_name]
        print(shape_name, file=sys.stderr)
        entry = {"attention": bench_attention(timer, shape, arguments.steps), "steps": []}
        report["shapes"][shape_name] = entry
        for kind in ("sft", "dpo"):
            try:
                entry["steps"].append(bench_step(timer, kind, shape, arguments.steps))
            except torch.OutOfMemoryError as error:
                entry["steps"].append({"kind": kind, "failed": str(error).splitlines()[0]})
    print(markdown(report) if arguments.markdown else json.dumps(report, indent=2))


main()
