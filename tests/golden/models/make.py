"""Tiny random checkpoints of every supported architecture by transformers, with golden logits, loss and gradients.

Made with Python 3.11, torch 2.15.0, transformers 5.24.0, safetensors 0.8.0:

    python tests/golden/models/make.py [name ...]

Each folder beside this file is a Hugging Face folder plus golden.json and golden.safetensors (golden_f64.py says what
is in them). Models with rotary embeddings have config_other_layout.json too: what config.json says, in the other of two
layouts, that of transformers 5 (`rope_parameters`, `dtype`) and that of transformers 4 (`rope_theta`, `rope_scaling`,
`torch_dtype`), which most published checkpoints have; `transformers` in golden.json is the layout of config.json.

What is asserted of each: the folder loads in transformers in either layout to the same logits; the float32 model agrees
with the float64 one to 1e-4; and without the feature the folder is there for (`without`), logits differ.

Dynamic RoPE (llama_dynamic): the base grows with the length of the sequence once that exceeds
max_position_embeddings, for all its positions. transformers takes the longest sequence of a batch, keeps the grown
frequencies for later sequences unless these are shorter than max_position_embeddings, and never turns cached keys
again. Here each sequence is run alone and from a fresh state; sequence 0 is longer than the maximum, sequence 1
shorter. A prefix of sequence 0 run alone therefore has other logits than its rows here.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

sys.dont_write_bytecode = True
from golden_f64 import SEQUENCES, all_logits, golden_of, in_f64, largest_difference, randomize, write_golden

HERE = Path(__file__).parent
SIZES = dict(
    vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)
LLAMA = dict(model_type="llama", **SIZES, rms_norm_eps=1e-5)
MISTRAL = dict(model_type="mistral", **SIZES, rms_norm_eps=1e-5)
QWEN2 = dict(model_type="qwen2", **SIZES, rms_norm_eps=1e-6, use_sliding_window=False)
QWEN3 = dict(model_type="qwen3", **SIZES, rms_norm_eps=1e-6, use_sliding_window=False, head_dim=16)
PHI3 = dict(model_type="phi3", **SIZES, rms_norm_eps=1e-5, original_max_position_embeddings=64)
GPT2 = dict(
    model_type="gpt2", vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=40, layer_norm_epsilon=1e-5,
    bos_token_id=1, eos_token_id=2, pad_token_id=None,
)


def rope(rope_type, **settings):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


# With heads of 8 the wavelengths are 6.3, 62.8, 628 and 6283 positions: the first is kept (below 128 / 4), the second
# is in between, the others are stretched (above 128 / 1).
LLAMA3_ROPE = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128,
)
PLAIN_ROPE = rope("default")

# name: config, then options: dtype of the weights, layout of config.json, shards, published names, and a change of the
# configuration (`without`) or the parameters (`without_parameters`, a part of their names) that must show.
VARIANTS = {
    "llama": (dict(LLAMA, **PLAIN_ROPE), dict(transformers=5)),
    "llama_linear": (dict(LLAMA, **rope("linear", factor=2.0)), dict(transformers=4, without=PLAIN_ROPE)),
    "llama_dynamic": (
        dict(LLAMA, **rope("dynamic", factor=2.0)) | {"max_position_embeddings": 16},
        dict(transformers=4, without=PLAIN_ROPE),
    ),
    "llama3": (
        dict(LLAMA, **LLAMA3_ROPE, tie_word_embeddings=True) | {"max_position_embeddings": 512},
        dict(transformers=5, without=PLAIN_ROPE),
    ),
    "llama_bias": (
        dict(LLAMA, **PLAIN_ROPE, attention_bias=True, mlp_bias=True),
        dict(transformers=4, without_parameters="proj.bias"),
    ),
    "mistral": (dict(MISTRAL, **PLAIN_ROPE, head_dim=16, sliding_window=None), dict(transformers=4)),
    "mistral_window": (dict(MISTRAL, **PLAIN_ROPE, sliding_window=48), dict(transformers=5)),
    "qwen2": (
        dict(QWEN2, **PLAIN_ROPE, tie_word_embeddings=True),
        dict(transformers=4, without_parameters="proj.bias"),
    ),
    "qwen2_untied": (
        dict(QWEN2, **PLAIN_ROPE, tie_word_embeddings=False),
        dict(transformers=5, without_parameters="proj.bias"),
    ),
    "qwen3": (
        dict(QWEN3, **PLAIN_ROPE, tie_word_embeddings=True),
        dict(transformers=5, without_parameters="q_norm"),
    ),
    "phi3": (dict(PHI3, **PLAIN_ROPE), dict(transformers=4)),
    "gpt2": (GPT2, dict(transformers=5, without_parameters="bias")),
    "gpt2_published": (dict(GPT2, n_layer=1), dict(transformers=4, published_names=True, without_parameters="wpe")),
    "qwen2_bf16": (
        dict(QWEN2, **PLAIN_ROPE, tie_word_embeddings=True),
        dict(transformers=4, dtype=torch.bfloat16),
    ),
    "llama_f16": (dict(LLAMA, **PLAIN_ROPE), dict(transformers=5, dtype=torch.float16)),
    "llama_sharded": (dict(LLAMA, **PLAIN_ROPE), dict(transformers=4, shards=3)),
}


def config_of(settings):
    return AutoConfig.for_model(**settings)


def model_of(config):
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()


def to_layout_4(config):
    """config.json as transformers 4 wrote it."""
    config = dict(config, torch_dtype=config["dtype"], transformers_version="4.57.1")
    del config["dtype"]
    if "rope_parameters" in config:
        scaling = dict(config.pop("rope_parameters"))
        config["rope_theta"] = scaling.pop("rope_theta")
        rope_type = scaling.pop("rope_type")
        # The first releases with scaled RoPE wrote `type`.
        key = "type" if rope_type == "linear" else "rope_type"
        config["rope_scaling"] = None if rope_type == "default" else {key: rope_type, **scaling}
    if config["model_type"].startswith("qwen"):
        # Published Qwens name a window that they then switch off.
        config["sliding_window"] = 16
        del config["layer_types"]
    if config["model_type"] == "gpt2":
        config["n_ctx"] = config["n_positions"]
        for key in ("add_cross_attention", "n_inner", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx",
                    "scale_attn_weights", "tie_word_embeddings", "torch_dtype", "transformers_version", "use_cache"):
            del config[key]
    return dict(sorted(config.items()))


def write_config(folder, version):
    path = folder / "config.json"
    layouts = {5: json.loads(path.read_text())}
    layouts[4] = to_layout_4(layouts[5])
    texts = {key: json.dumps(value, indent=2, sort_keys=True) + "\n" for key, value in layouts.items()}
    path.write_text(texts[version])
    if "rope_parameters" in layouts[5]:
        (folder / "config_other_layout.json").write_text(texts[9 - version])


def publish_names(folder, config):
    """The names that GPT-2 was published with: no `transformer.` in front, and the causal mask as a tensor."""
    path = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    mask = torch.tril(torch.ones(config.n_positions, config.n_positions))[None, None]
    tensors |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(config.n_layer)}
    save_file(tensors, path, metadata={"format": "pt"})


def save(model, folder, options):
    shutil.rmtree(folder, ignore_errors=True)
    stored = model.to(options.get("dtype", torch.float32))
    total = sum(parameter.nbytes for parameter in stored.parameters())
    shards = options.get("shards", 1)
    stored.save_pretrained(folder, max_shard_size=int(total / shards * 1.2))
    assert len(list(folder.glob("*.safetensors"))) == shards
    (folder / "generation_config.json").unlink(missing_ok=True)
    if options.get("published_names"):
        publish_names(folder, model.config)
    write_config(folder, options["transformers"])


def load(folder, config_file="config.json"):
    config = AutoConfig.from_pretrained(folder / config_file)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    return model.eval()


@torch.no_grad()
def check(folder, logits, settings, options):
    model = load(folder)
    assert largest_difference(all_logits(model), logits) < 1e-4, f"{folder.name}: f32 and f64 differ"
    if (folder / "config_other_layout.json").exists():
        other = load(folder, "config_other_layout.json")
        assert largest_difference(all_logits(other), logits) < 1e-4, f"{folder.name}: config_other_layout.json"
    if "without" in options:
        plain = model_of(config_of({**settings, **options["without"]}))
        plain.load_state_dict(model.state_dict())
        assert largest_difference(all_logits(plain), logits) > 0.01, f"{folder.name}: the feature does not show"
    if "without_parameters" in options:
        hits = [p for name, p in model.named_parameters() if options["without_parameters"] in name]
        assert hits, f"{folder.name}: no parameters named {options['without_parameters']}"
        for parameter in hits:
            parameter.zero_()
        assert largest_difference(all_logits(model), logits) > 0.01, f"{folder.name}: the parameters do not show"


def make(name, seed):
    settings, options = VARIANTS[name]
    folder = HERE / name
    save(randomize(model_of(config_of(settings)), seed), folder, options)
    tensors, loss = golden_of(in_f64(load(folder)))
    check(folder, [tensors[f"logits.{i}"] for i in range(len(SEQUENCES))], settings, options)
    size = write_golden(folder, tensors, {"loss": loss, "transformers": options["transformers"]})
    print(f"{name}: {size} bytes, loss {loss:.4f}")


def main():
    logging.disable_progress_bar()
    for seed, name in enumerate(VARIANTS, start=100):
        if name in sys.argv[1:] or len(sys.argv) == 1:
            make(name, seed)


if __name__ == "__main__":
    main()
