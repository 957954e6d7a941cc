"""LoRA adapters by PEFT on the checkpoints of make.py, with golden logits, loss, gradients and merged weights.

Made with Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, safetensors 0.8.0:

    python tests/golden/models/make_lora.py [name ...]

Each folder <name>_lora beside this file is what PEFT's save_pretrained writes (target_modules sorted, as PEFT keeps
them in a set; no README.md), with random A and B, plus golden.json, whose `base` names the checkpoint's folder, and
golden.safetensors in float32, computed in float64:

- `logits.<i>` of the base with the adapter, and `loss`, as golden_f64.py says;
- `gradient.<tensor>` of that loss by each tensor of adapter_model.safetensors; the base is frozen;
- `merged.<parameter>`: each weight of the base that merge_and_unload changes, afterwards;
- `merged_logits.<i>`: logits of the merged model, its weights rounded to float32.
"""

import json
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.utils import logging

sys.dont_write_bytecode = True
from golden_f64 import all_logits, computing_in_f64, golden_of, in_f64, largest_difference, write_golden
from make import HERE, load

# name: base, LoraConfig. The scale of B A is lora_alpha / r, and lora_alpha / sqrt(r) with use_rslora.
VARIANTS = {
    "llama3_all_linear_lora": ("llama3", dict(target_modules="all-linear", r=4, lora_alpha=8)),
    "llama3_qv_lora": ("llama3", dict(target_modules=["q_proj", "v_proj"], r=4, lora_alpha=12)),
    "qwen2_rslora_lora": ("qwen2", dict(target_modules="all-linear", r=8, lora_alpha=8, use_rslora=True)),
    "qwen2_bf16_lora": ("qwen2_bf16", dict(target_modules=["q_proj", "o_proj", "down_proj"], r=4, lora_alpha=8)),
    "gpt2_lora": (
        "gpt2", dict(target_modules=["c_attn", "c_proj", "c_fc"], r=4, lora_alpha=8, fan_in_fan_out=True),
    ),
}


def randomize_adapter(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def with_adapter(base, folder):
    return PeftModel.from_pretrained(in_f64(load(base)), folder, is_trainable=True).double().eval()


@torch.no_grad()
def merged_of(base, folder, logits):
    """Weights that the merge changes, and logits with these in float32."""
    before = in_f64(load(base))
    after = with_adapter(base, folder).merge_and_unload()
    with computing_in_f64():
        assert largest_difference(all_logits(after), logits) < 1e-9, f"{folder.name}: merging changes logits"
    old = dict(before.named_parameters())
    merged = {name: p.clone() for name, p in after.named_parameters() if not torch.equal(p, old[name])}
    for parameter in after.parameters():
        parameter.copy_(parameter.to(torch.float32))
    with computing_in_f64():
        return merged, all_logits(after)


def make(name, seed):
    base_name, settings = VARIANTS[name]
    base, folder = HERE / base_name, HERE / name
    adapted = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    adapted.peft_config["default"].base_model_name_or_path = base_name
    save(randomize_adapter(adapted, seed), folder)
    tensors, loss = golden_of(with_adapter(base, folder))
    tensors = {tensor.replace(".default.", "."): value for tensor, value in tensors.items()}
    logits = [value for tensor, value in tensors.items() if tensor.startswith("logits.")]
    merged, merged_logits = merged_of(base, folder, logits)
    tensors |= {f"merged.{weight}": value for weight, value in merged.items()}
    tensors |= {f"merged_logits.{i}": rows for i, rows in enumerate(merged_logits)}
    with torch.no_grad():
        assert largest_difference(all_logits(adapted.eval()), logits) < 1e-4, f"{name}: f32 and f64 differ"
        with adapted.disable_adapter():
            assert largest_difference(all_logits(adapted), logits) > 0.05, f"{name}: the adapter does not show"
    size = write_golden(folder, tensors, {"loss": loss, "base": base_name})
    print(f"{name}: {size} bytes, loss {loss:.4f}, {len(merged)} weights")


def main():
    logging.disable_progress_bar()
    for seed, name in enumerate(VARIANTS, start=200):
        if name in sys.argv[1:] or len(sys.argv) == 1:
            make(name, seed)


if __name__ == "__main__":
    main()
