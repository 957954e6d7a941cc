"""Whether transformers loads what was saved here, to the golden logits.

Run with Python 3.11, torch 2.15.0 and safetensors 0.8.0, by transformers 5.24.0 and by 4.57.1:

    deno run -A tests/golden/models/resave.ts saved
    python tests/golden/models/check_saved.py saved

Asserts for each folder in `saved`, made from the golden checkpoint of that name: every tensor is used and none is
missing, and all logits of a float32 model are the golden ones to 1e-4; prints the largest difference.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent


@torch.no_grad()
def largest_difference(folder):
    golden = json.loads((HERE / folder.name / "golden.json").read_text())
    expected = load_file(HERE / folder.name / "golden.safetensors")
    largest = 0.0
    for index, ids in enumerate(golden["sequences"]):
        # Dynamic RoPE remembers the longest sequence: a fresh model for each.
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
        )
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        logits = model.eval()(torch.tensor([ids])).logits[0]
        largest = max(largest, (logits - expected[f"logits.{index}"]).abs().max().item())
    assert largest < 1e-4, f"{folder.name}: {largest}"
    return type(model).__name__, largest


def main():
    transformers.utils.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}")
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        name, largest = largest_difference(folder)
        print(f"{folder.name:16} {name:20} {largest:.1e}")


if __name__ == "__main__":
    main()
