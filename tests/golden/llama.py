"""Two tiny random Llamas by transformers, with golden logits, loss and gradients in float64.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0:

    python tests/golden/llama.py

Writes tiny_llama/ (own head, config.json in transformers 5's layout with `rope_parameters`) and tiny_llama_tied/ (tied
head, config.json in transformers 4's layout with `rope_theta` and `torch_dtype`, which most published checkpoints have)
beside this file, each a Hugging Face folder with float32 weights and golden.json:

- `sequences`: two lists of token ids, of different lengths;
- `logits`: one list of rows by vocabulary per sequence, row-major;
- `loss`: mean cross-entropy over all next tokens of both sequences together;
- `gradients`: of that loss by each parameter; `head` holds the first 64 values in row-major order, then `sum`,
  `sumSquares` and `projection` (sum of g[i] cos(i), which also sees the order) over all values.

transformers computes norms and rotary angles in float32 even in a float64 model, so those two are replaced by the same
equations in float64 here. The unchanged float32 model must agree to 1e-4, which the script asserts.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

SEQUENCES = [
    [0, 1, 17, 45, 9, 9, 30, 2, 47, 11, 5],
    [1, 33, 0, 8, 8, 21, 40],
]


def rms_norm_in_f64(self, hidden_states):
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


@torch.no_grad()
def rotary_in_f64(self, x, position_ids):
    dim, base = self.config.head_dim, self.config.rope_parameters["rope_theta"]
    inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim))
    freqs = position_ids[..., None].double() * inv_freq
    emb = torch.cat((freqs, freqs), dim=-1)
    return emb.cos(), emb.sin()


def patch_to_f64():
    """Makes float64 Llamas compute in float64 throughout."""
    modeling_llama.LlamaRMSNorm.forward = rms_norm_in_f64
    modeling_llama.LlamaRotaryEmbedding.forward = rotary_in_f64


def build(tied, seed, rope_theta):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta}, bos_token_id=1, eos_token_id=2,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Large enough that logits differ from each other, and gains differ from 1.
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if name.endswith("norm.weight") else 0.2 * noise)
    return model


def rounded(tensor, digits=12):
    return [float(f"{x:.{digits}g}") for x in tensor.detach().double().flatten().tolist()]


def all_logits(model):
    return [model(input_ids=torch.tensor([ids])).logits[0] for ids in SEQUENCES]


def golden_of(model):
    model.zero_grad()
    logits = all_logits(model)
    predicted = torch.cat([rows[:-1] for rows in logits])
    loss = F.cross_entropy(predicted, torch.tensor([label for ids in SEQUENCES for label in ids[1:]]))
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        g = parameter.grad.flatten()
        projection = (g * torch.cos(torch.arange(g.numel(), dtype=g.dtype))).sum()
        gradients[name] = {
            "shape": list(parameter.shape), "head": rounded(g[:64]),
            **{k: rounded(v)[0] for k, v in (("sum", g.sum()), ("sumSquares", g.square().sum()), ("projection", projection))},
        }
    return {
        "sequences": SEQUENCES, "logits": [rounded(rows) for rows in logits], "loss": rounded(loss)[0],
        "gradients": gradients,
    }


def to_version_4_layout(path):
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def main():
    here = Path(__file__).parent
    variants = (("tiny_llama", False, 7, 500.0), ("tiny_llama_tied", True, 8, 10000.0))
    models = {name: build(tied, seed, theta) for name, tied, seed, theta in variants}
    for name, model in models.items():
        model.save_pretrained(here / name)
        (here / name / "generation_config.json").unlink(missing_ok=True)
    to_version_4_layout(here / "tiny_llama_tied" / "config.json")
    models = {name: LlamaForCausalLM.from_pretrained(here / name, dtype=torch.float32).eval() for name in models}
    with torch.no_grad():
        in_f32 = {name: all_logits(model) for name, model in models.items()}
    patch_to_f64()
    for name, model in models.items():
        golden = golden_of(model.double())
        for rows, exact in zip(in_f32[name], golden["logits"]):
            assert (rows.flatten().double() - torch.tensor(exact, dtype=torch.float64)).abs().max() < 1e-4
        (here / name / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
