"""Greedy continuations and warped probabilities by transformers, for the generation tests.

Made with Python 3.11, torch 2.15.0, transformers 5.24.0, safetensors 0.8.0:

    python tests/golden/models/make_generation.py SHARED_DATA

SHARED_DATA holds models/stories260K, which stays there. Writes tests/golden/generation.json:

- `greedy`: `model` (stories260K, or a golden folder), `prompt` ids, `repetition_penalty`, `eos_token_id` (null: none),
  `max_new_tokens`, and the `continuation` ids that generate appended, the end token included. Computed in float64; in
  each step the best score leads by `smallest_gap` at least, which float32 cannot undo.
- `warped`: `logits`, the ids so far (`context`), the options of generate (null: off), and the `probabilities` that it
  would sample from, made by the processors in generate's order: repetition penalty, temperature, top-k, top-p. In the
  case of equal logits top-k keeps all that equal the k-th.

The penalty divides positive and multiplies negative scores of every token in the prompt or the continuation, once.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import LogitsProcessorList
from transformers.generation import (
    RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
)
from transformers.utils import logging

sys.dont_write_bytecode = True
from golden_f64 import computing_in_f64, in_f64
from make import HERE, load

SMALLEST_GAP = 1e-3
# The prompts of its golden.json, whose continuations were computed by other means and must be the same.
STORIES = [[1], [1, 403, 407, 261, 378], [1, 317, 269, 326, 263, 377, 267, 265, 282, 295, 433, 426]]
TINY = [[1, 17, 45], [33, 0, 8, 8, 21, 40, 16, 1], [5]]
# model: prompts, new tokens, penalties, end token.
GREEDY = {
    "stories260K": (STORIES, 64, (1.0, 1.2), 426),
    "llama3": (TINY, 24, (1.0, 1.3), None),
    "gpt2": (TINY, 24, (1.0, 1.3), None),
    "qwen3": (TINY, 24, (1.0, 1.3), None),
}
# In the order of generate.
PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor, "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper,
}
WARPS = [
    dict(),
    dict(temperature=0.5), dict(temperature=1.7),
    dict(top_k=1), dict(top_k=5), dict(top_k=50),
    dict(top_p=0.1), dict(top_p=0.5), dict(top_p=0.9), dict(top_p=0.999),
    dict(repetition_penalty=1.3), dict(repetition_penalty=0.8),
    dict(temperature=0.7, top_k=20), dict(temperature=0.7, top_p=0.8), dict(top_k=8, top_p=0.6),
    dict(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1),
    dict(temperature=1.5, top_k=6, top_p=0.95, repetition_penalty=2.0),
]


@torch.no_grad()
def greedy(model, prompt, options):
    model.generation_config.eos_token_id = options["eos_token_id"]
    with computing_in_f64():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=options["max_new_tokens"], repetition_penalty=options["repetition_penalty"],
            pad_token_id=0, output_scores=True, return_dict_in_generate=True,
        )
    best = torch.stack([scores[0].topk(2).values for scores in out.scores])
    gap = (best[:, 0] - best[:, 1]).min().item()
    assert best.dtype == torch.float64
    continuation = out.sequences[0, len(prompt):].tolist()
    return {"prompt": prompt, **options, "continuation": continuation, "smallest_gap": round(gap, 6)}


def greedy_cases(name, folder):
    prompts, max_new_tokens, penalties, end = GREEDY[name]
    model = in_f64(load(folder))

    def run(prompt, repetition_penalty, eos_token_id):
        options = dict(
            repetition_penalty=repetition_penalty, eos_token_id=eos_token_id, max_new_tokens=max_new_tokens,
        )
        return greedy(model, prompt, options)

    cases = [run(prompt, penalty, None) for prompt in prompts for penalty in penalties]
    # A token from the middle of the first continuation, unless GREEDY names one.
    end = cases[0]["continuation"][max_new_tokens // 2] if end is None else end
    cases += [run(prompt, penalties[0], end) for prompt in prompts]
    assert any(len(case["continuation"]) < max_new_tokens for case in cases), f"{name}: nothing stopped"
    assert min(case["smallest_gap"] for case in cases) > SMALLEST_GAP, f"{name}: a close call"
    return [{"model": name, **case} for case in cases]


def probabilities_of(logits, context, processors):
    scores = LogitsProcessorList(processors)(torch.tensor([context]), logits[None])
    return torch.softmax(scores[0], dim=-1)


def warped(logits, context, options):
    options = dict(temperature=None, top_k=None, top_p=None, repetition_penalty=None) | options
    processors = [make(options[key]) for key, make in PROCESSORS.items() if options[key] is not None]
    exact = torch.tensor(logits, dtype=torch.float64)
    probabilities = probabilities_of(exact, context, processors)
    in_f32 = probabilities_of(exact.to(torch.float32), context, processors)
    assert torch.equal(in_f32 > 0, probabilities > 0) and (in_f32 - probabilities).abs().max() < 1e-6
    return {
        "logits": logits, "context": context, **options,
        "probabilities": [float(f"{p:.12g}") for p in probabilities.tolist()],
    }


def warped_cases():
    generator = torch.Generator().manual_seed(300)
    # Exact in float32.
    logits = (3 * torch.randn(48, generator=generator)).mul(256).round().div(256).tolist()
    assert len(set(logits)) == 48 and min(logits) < 0 < max(logits)
    ranked = sorted(range(48), key=lambda i: -logits[i])
    context = [ranked[0], 7, ranked[2], ranked[0], ranked[-1], 30]
    cases = [warped(logits, context, options) for options in WARPS]
    equal = [1.0, 2.0, 2.0, -1.0, 2.0, 3.0, 0.5, 2.0]
    return cases + [warped(equal, [0], dict(top_k=3))]


def main():
    logging.disable_progress_bar()
    shared = Path(sys.argv[1])
    folders = {name: shared / "models" / name if name == "stories260K" else HERE / name for name in GREEDY}
    cases = [case for name, folder in folders.items() for case in greedy_cases(name, folder)]
    independent = json.loads((folders["stories260K"] / "golden.json").read_text())["prompts"]
    for prompt in independent:
        found = [c["continuation"] for c in cases if c["model"] == "stories260K" and c["prompt"] == prompt["input_ids"]]
        assert prompt["continuation_ids"] == found[0], "transformers and the checkpoint's own golden.json disagree"
    path = HERE.parent / "generation.json"
    path.write_text(json.dumps({"greedy": cases, "warped": warped_cases()}, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(cases)} continuations")


if __name__ == "__main__":
    main()
