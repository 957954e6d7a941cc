"""Tries check_model.py and check_adapter.py on what transformers and PEFT wrote: good folders pass, spoilt ones fail.

Made for Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, safetensors 0.8.0:

    python tests/golden/models/test_checks.py
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent


def copy_with_logits(name, parent, shift=0.0):
    """A copy of a golden folder with its logits in the layout that Keel writes, all moved by a part of the largest."""
    folder = parent / name
    shutil.copytree(HERE / name, folder)
    tensors = load_file(folder / "golden.safetensors")
    sequences = json.loads((folder / "golden.json").read_text())["sequences"]
    written = {}
    for i, ids in enumerate(sequences):
        suffix = f".{i}" if i else ""
        logits = tensors[f"logits.{i}"]
        written["ids" + suffix] = logits.new_tensor(ids)
        written["logits" + suffix] = logits + shift * logits.abs().max()
    save_file(written, folder / "logits.safetensors")
    return folder


def change_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def run(script, *arguments):
    command = [sys.executable, HERE / script, *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    last = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()[-1]
    print(script, *(argument.name for argument in arguments), "->", result.returncode, last[:160])
    return result.returncode


def fresh():
    return Path(tempfile.mkdtemp(dir=ROOT))


def check_models():
    for name in ("llama3", "llama_sharded", "llama_f16", "qwen2_bf16", "gpt2", "phi3"):
        assert run("check_model.py", copy_with_logits(name, fresh())) == 0
    assert run("check_model.py", copy_with_logits("qwen3", fresh(), shift=3e-4)) == 1
    missing = copy_with_logits("qwen2", fresh())
    change_tensors(missing / "model.safetensors", lambda t: t.pop("model.layers.1.self_attn.q_proj.bias"))
    assert run("check_model.py", missing) == 1
    surplus = copy_with_logits("llama", fresh())
    change_tensors(
        surplus / "model.safetensors", lambda t: t.update({"model.extra.weight": t["model.norm.weight"].clone()}),
    )
    assert run("check_model.py", surplus) == 1


def check_adapters():
    bases = {name: json.loads((HERE / name / "golden.json").read_text())["base"] for name in
             ("llama3_all_linear_lora", "llama3_qv_lora", "qwen2_rslora_lora", "qwen2_bf16_lora", "gpt2_lora")}
    for name, base in bases.items():
        assert run("check_adapter.py", copy_with_logits(name, fresh()), HERE / base) == 0
    assert run("check_adapter.py", copy_with_logits("gpt2_lora", fresh(), shift=3e-4), HERE / "gpt2") == 1
    renamed = copy_with_logits("llama3_qv_lora", fresh())
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    change_tensors(
        renamed / "adapter_model.safetensors", lambda t: t.update({key.replace("lora_B", "lora_C"): t.pop(key)}),
    )
    assert run("check_adapter.py", renamed, HERE / "llama3") == 1
    idle = copy_with_logits("llama3_qv_lora", fresh())
    change_tensors(
        idle / "adapter_model.safetensors", lambda t: [t[name].zero_() for name in t if "lora_B" in name],
    )
    shutil.copy(copy_with_logits("llama3", fresh()) / "logits.safetensors", idle)
    assert run("check_adapter.py", idle, HERE / "llama3") == 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as ROOT:
        check_models()
        check_adapters()
    print("OK")
