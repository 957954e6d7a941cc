"""Ten AdamW steps of DPO by TRL's own DPOTrainer on tiny_llama/, written to trl_dpo.json beside this file.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, trl 1.16.0:

    python tests/golden/llama.py && python tests/golden/trl_dpo.py

Sigmoid loss, beta 0.1, constant learning rate 1e-3, AdamW (0.9, 0.999), epsilon 1e-8, no weight decay, gradients clipped
at norm 1.0; batches of 4 pairs in the order given, 8 pairs, so step t (from 0) takes pairs 4 (t mod 2) to 4 (t mod 2) + 3.
The reference model is the initial policy. Text goes through a word-level tokenizer with one word per id, so TRL's own
tokenizing, end-of-sequence and collating code runs; the ids that the trainer saw are stored, end-of-sequence (2) included.

The body of the model runs in float64, with norms and rotary angles of transformers in float64 as in llama.py; TRL's fused
head computes log-probabilities and the loss in float32 whatever the model's type, so the numbers are good to about seven
digits. The same run all in float32, TRL's default, is made too: `float32Difference` is the largest absolute difference of
each logged number over the ten steps, a measure of what rounding alone may change.

- `pairs`: prompt, chosen and rejected ids;
- `steps`: for each step the numbers TRL logs before the update; grad_norm is the norm before clipping;
- `parameters`: each parameter after the last step, summarized as llama.py summarizes gradients.
"""

import json
import os
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from llama import patch_to_f64, rounded
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
EOS = 2
KEYS = (
    "loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
    "logps/rejected",
)


def tokenizer():
    words = {"<eos>" if i == EOS else f"w{i}": i for i in range(48)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")


def random_pairs():
    generator = torch.Generator().manual_seed(3)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    words = lambda count: [draw(3, 48) for _ in range(count)]
    return [
        {"prompt": words(draw(2, 7)), "chosen": words(draw(1, 8)), "rejected": words(draw(1, 8))} for _ in range(8)
    ]


def text(ids):
    return "".join(f" w{i}" for i in ids)


class RecordingTrainer(DPOTrainer):
    """Keeps the loss before the Trainer rounds it for its log."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.recorded_losses = getattr(self, "recorded_losses", []) + [loss.item()]
        return loss


def train(pairs, dtype, folder):
    model = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32).to(dtype)
    ref_model = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32).to(dtype)
    args = DPOConfig(
        output_dir=folder, loss_type=["sigmoid"], beta=0.1, learning_rate=1e-3, lr_scheduler_type="constant",
        warmup_steps=0, optim="adamw_torch", adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.0,
        max_grad_norm=1.0, per_device_train_batch_size=4, gradient_accumulation_steps=1, max_steps=10, logging_steps=1,
        train_sampling_strategy="sequential", save_strategy="no", report_to="none", bf16=False, fp16=False, use_cpu=True,
        gradient_checkpointing=False, max_length=None, disable_tqdm=True,
    )
    dataset = Dataset.from_list([{key: text(ids) for key, ids in pair.items()} for pair in pairs])
    trainer = RecordingTrainer(
        model=model, ref_model=ref_model, args=args, train_dataset=dataset, processing_class=tokenizer()
    )
    seen = [{key: row[f"{key}_ids"] for key in ("prompt", "chosen", "rejected")} for row in trainer.train_dataset]
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "logps/chosen" in entry]
    steps = [
        {key: float(loss if key == "loss" else entry[key]) for key in KEYS}
        for entry, loss in zip(logged, trainer.recorded_losses, strict=True)
    ]
    assert len(steps) == 10
    return seen, steps, trainer.model


def summary(parameter):
    values = parameter.detach().flatten()
    projection = (values * torch.cos(torch.arange(values.numel(), dtype=values.dtype))).sum()
    numbers = (("sum", values.sum()), ("sumSquares", values.square().sum()), ("projection", projection))
    return {"shape": list(parameter.shape), "head": rounded(values[:64]), **{k: rounded(v)[0] for k, v in numbers}}


def main():
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pairs = random_pairs()
    with tempfile.TemporaryDirectory() as folder:
        _, in_f32, _ = train(pairs, torch.float32, folder)
        patch_to_f64()
        seen, steps, model = train(pairs, torch.float64, folder)
    assert [pair["prompt"] for pair in seen] == [pair["prompt"] for pair in pairs]
    assert [pair["chosen"] for pair in seen] == [pair["chosen"] + [EOS] for pair in pairs]
    difference = {key: max(abs(a[key] - b[key]) for a, b in zip(in_f32, steps)) for key in KEYS}
    golden = {
        "settings": {
            "loss": "dpo", "beta": 0.1, "learningRate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
            "weightDecay": 0, "maxGradNorm": 1, "batchSize": 4,
        },
        "pairs": seen,
        "steps": [{key: float(f"{value:.9g}") for key, value in step.items()} for step in steps],
        "float32Difference": {key: float(f"{value:.2g}") for key, value in difference.items()},
        "parameters": {name: summary(p) for name, p in model.named_parameters()},
    }
    (HERE / "trl_dpo.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
