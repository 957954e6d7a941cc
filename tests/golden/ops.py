"""Golden values of every op from PyTorch autograd in float64, written to ops.json beside this file.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0:

    python tests/golden/ops.py

Each case has the names and layouts of the reference of the same name in tests/reference/: `inputs` and `dims` go to
forward, which must give `outputs`; with `upstream` they go to backward, which must give `gradients`. Inputs are multiples
of 1/256, so they are exact in float32 too.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

torch.set_default_dtype(torch.float64)
torch.manual_seed(20250710)


def rand(*shape, scale=1.0, shift=0.0):
    """Normal numbers rounded to multiples of 1/256."""
    return torch.round((torch.randn(shape) * scale + shift) * 256) / 256


def plain(value):
    """Tensors to flat lists in row-major order, numbers with 15 significant digits."""
    if torch.is_tensor(value):
        value = value.detach()
        return plain(value.item()) if value.dim() == 0 else [plain(x) for x in value.flatten().tolist()]
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, float):
        return int(value) if value == int(value) else float(f"{value:.15g}")
    return value


def gradient_name(name):
    return "d" + name[0].upper() + name[1:]


def case(op, name, dims, inputs, function, differentiate=(), output=None):
    """Runs `function(**inputs)` to a dict of outputs, and autograd from a random upstream of `output`."""
    leaves = {k: v.clone().requires_grad_(k in differentiate) if torch.is_tensor(v) else v for k, v in inputs.items()}
    outputs = function(**leaves)
    record = {"op": op, "name": name, "dims": dims, "inputs": inputs, "outputs": outputs}
    if differentiate:
        upstream = rand(*outputs[output].shape)
        gradients = torch.autograd.grad(outputs[output], [leaves[k] for k in differentiate], upstream)
        record["upstream"] = {gradient_name(output): upstream}
        record["gradients"] = {gradient_name(k): g for k, g in zip(differentiate, gradients)}
    return plain(record)


def matmul_cases():
    for name, ta, tb in (("NN", False, False), ("NT", False, True), ("TN", True, False)):
        m, n, k = 5, 7, 3
        a, b = rand(*((k, m) if ta else (m, k))), rand(*((n, k) if tb else (k, n)))
        yield case(
            "matmul", name, {"M": m, "N": n, "K": k, "transposeA": ta, "transposeB": tb}, {"a": a, "b": b},
            lambda a, b: {"c": (a.T if ta else a) @ (b.T if tb else b)}, ("a", "b"), "c",
        )


def embedding_cases():
    ids = torch.tensor([3, 0, 3, 6, 1, 3])
    yield case(
        "embedding", "repeated ids", {"N": 6, "V": 7, "C": 4}, {"ids": ids.tolist(), "weight": rand(7, 4)},
        lambda ids, weight: {"y": F.embedding(torch.tensor(ids), weight)}, ("weight",), "y",
    )


def rms_norm_cases():
    for n, c, eps in ((4, 17, 1e-5), (2, 8, 1e-2)):
        yield case(
            "rms_norm", f"{n}x{c}", {"N": n, "C": c, "eps": eps}, {"x": rand(n, c), "w": rand(c)},
            lambda x, w: {"y": F.rms_norm(x, (c,), w, eps)}, ("x", "w"), "y",
        )


def rope_cases():
    n, h, d, theta = 5, 3, 8, 10000.0
    positions = torch.tensor([0, 1, 2, 0, 900])

    def rope(x, positions):
        inv_freq = 1.0 / (theta ** (torch.arange(0, d, 2) / d))
        freqs = torch.tensor(positions)[:, None] * inv_freq
        emb = torch.cat((freqs, freqs), dim=-1)
        heads = x.reshape(n, h, d)
        rotated, _ = apply_rotary_pos_emb(heads, heads, emb.cos(), emb.sin())
        return {"y": rotated.reshape(n, h * d)}

    yield case(
        "rope", "restarting positions", {"N": n, "H": h, "D": d, "theta": theta},
        {"x": rand(n, h * d), "positions": positions.tolist()}, rope, ("x",), "y",
    )


def attention(q, k, v, sequenceOffsets, dims):
    n, h, kv, d = (dims[key] for key in "NHKD")
    q = q.reshape(n, h, d).transpose(0, 1)
    k, v = (t.reshape(n, kv, d).transpose(0, 1).repeat_interleave(h // kv, dim=0) for t in (k, v))
    sequence = torch.bucketize(torch.arange(n), torch.tensor(sequenceOffsets[1:]), right=True)
    row = torch.arange(n)
    mask = (sequence[:, None] == sequence[None, :]) & (row[:, None] >= row[None, :])
    scores = (q @ k.transpose(1, 2) / math.sqrt(d)).masked_fill(~mask, -math.inf)
    out = scores.softmax(-1) @ v
    return {"out": out.transpose(0, 1).reshape(n, h * d), "lse": scores.logsumexp(-1).T.contiguous()}


def attention_cases():
    for name, dims, offsets in (
        ("one sequence", {"N": 6, "H": 2, "K": 2, "D": 4}, [0, 6]),
        ("packed, grouped", {"N": 9, "H": 4, "K": 2, "D": 4}, [0, 3, 4, 9]),
        ("one kv head", {"N": 5, "H": 3, "K": 1, "D": 6}, [0, 2, 5]),
    ):
        n, h, kv, d = (dims[key] for key in "NHKD")
        inputs = {"q": rand(n, h * d), "k": rand(n, kv * d), "v": rand(n, kv * d), "sequenceOffsets": offsets}
        yield case("attention", name, dims, inputs, lambda **t: attention(**t, dims=dims), ("q", "k", "v"), "out")


def elementwise_cases():
    length = 33
    a, b = rand(length, scale=4.0), rand(length)
    dims = {"length": length}
    yield case("silu", "33", dims, {"x": a}, lambda x: {"y": F.silu(x)}, ("x",), "y")
    yield case("swiglu", "33", dims, {"gate": a, "up": b}, lambda gate, up: {"y": F.silu(gate) * up}, ("gate", "up"), "y")
    yield case("add", "33", dims, {"a": a, "b": b}, lambda a, b: {"y": a + b}, ("a", "b"), "y")


def token_logps_cases():
    n, c, v = 7, 5, 19
    labels = torch.tensor([4, -100, 0, 18, -100, 4, 7])

    def token_logps(hidden, lmHead, labels):
        labels = torch.tensor(labels)
        logps = -F.cross_entropy(hidden @ lmHead.T, labels, ignore_index=-100, reduction="none")
        return {"logps": logps[labels != -100]}

    yield case(
        "token_logps", "with ignored rows", {"N": n, "C": c, "V": v},
        {"hidden": rand(n, c), "lmHead": rand(v, c), "labels": labels.tolist()}, token_logps, ("hidden", "lmHead"), "logps",
    )


def sequence_logps_cases():
    offsets = [0, 4, 5, 9]

    def sequence_logps(tokenLogps, sequenceOffsets):
        return {"s": torch.stack([part.sum() for part in tokenLogps.split([4, 1, 4])])}

    yield case(
        "sequence_logps", "three", {"M": 9, "S": 3}, {"tokenLogps": rand(9, shift=-3.0), "sequenceOffsets": offsets},
        sequence_logps, ("tokenLogps",), "s",
    )


def pair_losses(s, ref, lengths, kind):
    """Losses [P] as TRL writes them: dpo, hinge and ipo of DPOTrainer, simpo of CPOTrainer."""
    beta = kind["beta"]
    (s_w, s_l), (ref_w, ref_l), (n_w, n_l) = (t.chunk(2) for t in (s, ref, torch.tensor(lengths)))
    c, r = s_w - ref_w, s_l - ref_l
    if kind["loss"] == "dpo":
        e = kind.get("labelSmoothing", 0.0)
        return -F.logsigmoid(beta * (c - r)) * (1 - e) - F.logsigmoid(-beta * (c - r)) * e
    if kind["loss"] == "hinge":
        return torch.relu(1 - beta * (c - r))
    if kind["loss"] == "ipo":
        delta = c / n_w - r / n_l if kind.get("lengthNormalize", True) else c - r
        return (delta - 1 / (2 * beta)) ** 2
    logits = s_w / n_w - s_l / n_l - kind["gammaBetaRatio"]
    return -F.logsigmoid(beta * logits)


KINDS = (
    {"loss": "dpo", "beta": 0.1},
    {"loss": "dpo", "beta": 0.5, "labelSmoothing": 0.1},
    {"loss": "hinge", "beta": 0.1},
    {"loss": "ipo", "beta": 0.1},
    {"loss": "ipo", "beta": 0.1, "lengthNormalize": False},
    {"loss": "simpo", "beta": 2.0, "gammaBetaRatio": 0.5},
)


def pair_inputs(p):
    ref = rand(2 * p, scale=4.0, shift=-30.0)
    return {"s": ref + rand(2 * p, scale=6.0), "ref": ref, "lengths": torch.randint(1, 12, (2 * p,)).tolist()}


def pair_loss_cases():
    p, normalizer = 5, 8
    for kind in KINDS:

        def pair_loss(s, ref, lengths):
            losses = pair_losses(s, ref, lengths, kind)
            return {"losses": losses, "loss": losses.sum() / normalizer}

        dims = {**kind, "P": p, "normalizer": normalizer}
        name = " ".join(f"{value}" for value in kind.values())
        yield case("pair_loss", name, dims, pair_inputs(p), pair_loss, ("s",), "loss")


def spo_cases():
    p = 5
    inputs = pair_inputs(p)
    lower_level = (-inputs["s"][:p] / torch.tensor(inputs["lengths"][:p])).mean().item()
    for kind in (KINDS[0], KINDS[-1]):
        for penalty in ("linear", "hinge", "quadratic"):
            for where, gap in (("inside", 0.05), ("outside", 0.75)):
                settings = {
                    "lambda": 0.5, "penalty": penalty, "epsilon": 0.125, "vStar": lower_level - gap,
                    "rho": 0.25, "margin": 1.0,
                }

                def spo(s, ref, lengths):
                    n_w = torch.tensor(lengths)[:p]
                    loss = pair_losses(s, ref, lengths, kind).mean()
                    improvement = (torch.relu(ref[:p] - s[:p] + settings["margin"]) / n_w).mean()
                    g = (-s[:p] / n_w).mean()
                    z = g - settings["vStar"]
                    excess = torch.relu(z - settings["epsilon"])
                    phi = {"linear": z, "hinge": excess, "quadratic": excess**2 / 2}[penalty]
                    upper = loss + settings["rho"] * improvement
                    total = upper + settings["lambda"] * phi
                    return {
                        "total": total, "upperLevel": upper, "loss": loss, "improvement": improvement,
                        "lowerLevel": g, "gap": z, "penalty": phi,
                    }

                dims = {"pairLoss": {**kind, "P": p, "normalizer": p}, **settings}
                yield case("spo", f"{kind['loss']} {penalty} {where}", dims, inputs, spo, ("s",), "total")


def adamw_cases():
    """Three steps of one optimizer, one case per step, moments included."""
    length = 6
    dims = {"length": length, "learningRate": 0.05, "beta1": 0.9, "beta2": 0.95, "eps": 1e-6, "weightDecay": 0.1}
    parameter = torch.nn.Parameter(rand(length))
    optimizer = torch.optim.AdamW(
        [parameter], lr=dims["learningRate"], betas=(dims["beta1"], dims["beta2"]), eps=dims["eps"],
        weight_decay=dims["weightDecay"], foreach=False,
    )
    m = v = torch.zeros(length)
    for step in (1, 2, 3):
        gradient = rand(length) * (step != 2 or torch.tensor([1, 0, 1, 0, 1, 1]))
        inputs = {"parameter": parameter.detach().clone(), "gradient": gradient, "m": m, "v": v}
        parameter.grad = gradient.clone()
        optimizer.step()
        state = optimizer.state[parameter]
        m, v = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
        outputs = {"parameter": parameter.detach().clone(), "m": m, "v": v}
        yield plain({"op": "adamw", "name": f"step {step}", "dims": {**dims, "step": step}, "inputs": inputs, "outputs": outputs})


def clip_cases():
    gradients = [rand(4), rand(3), rand(1)]
    for name, max_norm in (("clipped", 1.0), ("kept", 100.0)):
        parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for p, g in zip(parameters, gradients):
            p.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False)
        outputs = {"norm": norm, "gradients": [p.grad for p in parameters]}
        yield plain(
            {"op": "clip", "name": name, "dims": {"maxNorm": max_norm}, "inputs": {"gradients": gradients}, "outputs": outputs}
        )


def main():
    groups = (
        matmul_cases, embedding_cases, rms_norm_cases, rope_cases, attention_cases, elementwise_cases, token_logps_cases,
        sequence_logps_cases, pair_loss_cases, spo_cases, adamw_cases, clip_cases,
    )
    cases = [case for group in groups for case in group()]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    Path(__file__).with_name("ops.json").write_text(f'{{"torch":"{torch.__version__}","cases":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
