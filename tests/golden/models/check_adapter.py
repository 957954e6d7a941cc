"""Loads a LoRA adapter that Keel wrote in PEFT, on its base in transformers, and compares logits.

Made for Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2, safetensors 0.8.0:

    python tests/golden/models/check_adapter.py FOLDER BASE

FOLDER holds adapter_config.json, adapter_model.safetensors, and logits.safetensors as check_logits.py says; BASE is the
checkpoint's folder, widened to float32. Exits with 1 where PEFT finds other tensors than the file has, where logits
differ, or where the adapter changes nothing. The same logits must come out after merge_and_unload.
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers.utils import logging

sys.dont_write_bytecode = True
from check_logits import LARGEST_RELATIVE_DIFFERENCE, fail, largest_relative_difference, require_equal_logits
from check_model import load_strictly


def require_all_tensors(model, folder):
    stored = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    if stored.keys() != loaded.keys():
        fail(f"{folder}: PEFT expects other tensors: {sorted(stored.keys() ^ loaded.keys())}")
    for name, tensor in stored.items():
        if not torch.equal(tensor.float(), loaded[name].float()):
            fail(f"{folder}: {name} was not loaded")


def main():
    if len(sys.argv) != 3:
        fail("expected an adapter's folder and its base's")
    logging.disable_progress_bar()
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])
    model = PeftModel.from_pretrained(load_strictly(base), folder).eval()
    require_all_tensors(model, folder)
    difference = require_equal_logits(model, folder)
    with model.disable_adapter():
        if largest_relative_difference(model, folder) <= LARGEST_RELATIVE_DIFFERENCE:
            fail(f"{folder}: the adapter changes nothing")
    merged = require_equal_logits(model.merge_and_unload(), folder)
    print(f"OK: {folder} loads in PEFT, logits within {difference:.2g} of the largest one, merged {merged:.2g}")


if __name__ == "__main__":
    main()
