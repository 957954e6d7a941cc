"""Golden values in float64 for any causal model of transformers; used by make.py and make_lora.py.

A golden folder is a Hugging Face folder with two files more:

- golden.json: `sequences`, lists of token ids of different lengths, and `loss`, the mean cross-entropy over all next
  tokens of all sequences together; make.py and make_lora.py add keys of their own.
- golden.safetensors, float32: `logits.<i>` [T, V] of sequence i run alone, and `gradient.<parameter>`, the gradient of
  the loss in full.

transformers computes norms, rotary angles and softmax in float32 even in a float64 model. All of that code asks for
torch.float32, so inside `computing_in_f64` that name stands for float64.
"""

import contextlib
import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SEQUENCES = [
    [1, 17, 45, 9, 9, 30, 2, 47, 11, 5, 0, 33, 8, 21, 40, 3, 3, 28, 14, 46, 7, 19, 35, 12, 1, 25, 38, 44, 6],
    [33, 0, 8, 8, 21, 40, 16, 1, 47, 29, 10],
]


@contextlib.contextmanager
def computing_in_f64():
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float, default = saved
        torch.set_default_dtype(default)


def randomize(model, seed):
    """Weights large enough that logits differ from each other; gains differ from 1, biases from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.dim() == 1 and name.endswith(".weight")
            parameter.copy_(1 + noise if is_gain else noise)
    return model


def in_f64(model):
    """The same model with every constant, such as the rotary frequencies, made in float64 too."""
    with computing_in_f64():
        wide = type(model)(model.config)
        wide.load_state_dict(model.state_dict())
        assert all(parameter.dtype == torch.float64 for parameter in wide.parameters())
    return wide.eval()


def reset_rotary(model):
    """Dynamic RoPE keeps the frequencies of the longest sequence it has seen; each sequence here starts afresh."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.inv_freq = module.original_inv_freq.clone()
            module.max_seq_len_cached = module.original_max_seq_len


def all_logits(model, sequences=SEQUENCES):
    logits = []
    for ids in sequences:
        reset_rotary(model)
        logits.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0])
    return logits


def largest_difference(some, others):
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(some, others, strict=True))


def golden_of(model):
    """Logits, loss and gradients of the trainable parameters of a float64 model, as tensors and a float."""
    with computing_in_f64():
        model.zero_grad()
        logits = all_logits(model)
        labels = torch.tensor([label for ids in SEQUENCES for label in ids[1:]])
        loss = F.cross_entropy(torch.cat([rows[:-1] for rows in logits]), labels)
        loss.backward()
    tensors = {f"logits.{i}": rows for i, rows in enumerate(logits)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 1e-6, f"{name}: the gradient is zero"
            tensors[f"gradient.{name}"] = parameter.grad
    assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values())
    return tensors, loss.item()


def write_golden(folder, tensors, values):
    narrow = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    save_file(narrow, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({"sequences": SEQUENCES, **values}, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 300_000, f"{folder.name}: {size} bytes"
    return size
