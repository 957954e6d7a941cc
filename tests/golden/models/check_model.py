"""Loads a checkpoint folder that Keel wrote, single or sharded, in transformers and compares logits.

Made for Python 3.11, torch 2.15.0, transformers 5.24.0, safetensors 0.8.0:

    python tests/golden/models/check_model.py FOLDER

FOLDER holds config.json, the weights, and logits.safetensors as check_logits.py says. Weights are widened to float32.
Exits with 1 where a tensor is missing, unknown or of another shape, or where logits differ.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.dont_write_bytecode = True
from check_logits import fail, require_equal_logits


def load_strictly(folder):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
    )
    for key, found in info.items():
        if found:
            fail(f"{folder}: {key}: {found}")
    return model.eval()


def main():
    if len(sys.argv) != 2:
        fail("expected one folder")
    logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    difference = require_equal_logits(load_strictly(folder), folder)
    print(f"OK: {folder} loads in transformers, logits within {difference:.2g} of the largest one")


if __name__ == "__main__":
    main()
