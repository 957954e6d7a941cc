"""Compares the logits of a loaded model with those that Keel wrote; used by check_model.py and check_adapter.py.

logits.safetensors holds `ids` [T] and `logits` [T, V] of one sequence; more follow as `ids.1`, `logits.1` and so on.
Ids may be stored as any element type, since Keel writes tensors as floats.
"""

import sys

import torch
from safetensors.torch import load_file

# Keel computes in float32, transformers here too: relative to the largest logit.
LARGEST_RELATIVE_DIFFERENCE = 1e-4


def fail(message):
    print(f"FAILED: {message}", file=sys.stderr)
    sys.exit(1)


def sequences_of(folder):
    path = folder / "logits.safetensors"
    if not path.exists():
        fail(f"{path}: expected a file, found nothing")
    tensors = load_file(path)
    names = sorted(name for name in tensors if name == "ids" or name.startswith("ids."))
    if not names or len(names) * 2 != len(tensors):
        fail(f"{path}: expected ids and logits, found {sorted(tensors)}")
    return [(tensors[name].round().long(), tensors["logits" + name[len("ids"):]].double()) for name in names]


@torch.no_grad()
def largest_relative_difference(model, folder):
    largest = 0.0
    for ids, expected in sequences_of(folder):
        logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
        if logits.shape != expected.shape or not expected.isfinite().all():
            fail(f"expected finite logits {list(logits.shape)}, found {list(expected.shape)}")
        largest = max(largest, ((logits - expected).abs().max() / logits.abs().max()).item())
    return largest


def require_equal_logits(model, folder):
    difference = largest_relative_difference(model, folder)
    if difference > LARGEST_RELATIVE_DIFFERENCE:
        fail(f"logits differ by {difference:.3g} of the largest one, expected {LARGEST_RELATIVE_DIFFERENCE} at most")
    return difference
