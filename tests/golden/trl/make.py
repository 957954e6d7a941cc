"""Ten AdamW steps of every preference loss by TRL's own trainers on tests/golden/tiny_llama, written beside this file.

Made with Python 3.11, torch 2.15.0, transformers 5.24.0, trl 1.16.0, peft 0.21.2, accelerate 1.15.0, datasets 5.2.0:

    python tests/golden/trl/make.py [case ...]

Without names it makes every case and the adapter; with names those cases alone, kept beside the others.

Constant learning rate, AdamW (0.9, 0.999), epsilon 1e-8, no weight decay, gradients clipped at norm 1; batches in the
order given, no shuffling, no dropout. Pairs: 8, in batches of 4, so step t (from 0) takes pairs 4 (t mod 2) to
4 (t mod 2) + 3. KTO: 8 labelled answers in batches of 4. The reference is the initial policy. Text goes through a
word-level tokenizer with one word per id, so TRL's own tokenizing, end-of-sequence and collating code runs; the ids that
the trainer saw are stored, end-of-sequence (2) included. LoRA: rank 4, alpha 8, every linear layer but the head, B zero
and A as in lora/, a Hugging Face adapter folder.

The body of the model runs in float64 (llama.py of the folder above). TRL's fused head (DPO and KTO trainers) and ORPO's
log-odds compute in float32 whatever the model's type, so numbers are good to about seven digits. TRL 1.16 calls `aot`
and `aot_unpaired` what older versions called `aot_pair` and `aot`.

What TRL does with some options, and Keel does not (docs/losses.md, "Where TRL differs"):

- DPOTrainer reads `label_smoothing` in robust, exo_pair, aot and aot_unpaired; with sigmoid it has no effect and no
  message. The case `dpo_label_smoothing` therefore comes from CPOTrainer's log-sigmoid with a label smoothing, which is
  cDPO without a reference.
- `alphapo` leaves alpha at 0, which is SimPO: the case sets it.
- `bco_pair` has no running mean of rewards to subtract.
- CPOTrainer adds its NLL to SimPO too, unless cpo_alpha is set to 0: the case `simpo` sets it.
- `logits/*` of CPO and ORPO are means over all positions, the prompt's and the padding's included.

Files: pairs.json (ids), dpo.json, cpo.json, orpo.json, kto.json: by case `trainer`, `config` (what was given to TRL's
config beside the settings above), `full` and `lora`: by number that TRL logs, its value before each of the ten updates;
`loss` is the trainer's own before the log rounds it, `grad_norm` the norm before clipping.
"""

import json
import os
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from llama import patch_to_f64  # noqa: E402

EOS = 2
STEPS = 10
LEARNING_RATES = {"full": 1e-3, "lora": 5e-3}
TRAINERS = {
    "dpo": (DPOConfig, DPOTrainer), "cpo": (CPOConfig, CPOTrainer), "orpo": (ORPOConfig, ORPOTrainer),
    "kto": (KTOConfig, KTOTrainer),
}
NOT_KEPT = {"epoch", "learning_rate", "num_tokens", "step", "total_flos"}


def dpo(*loss_type, **config):
    return "dpo", {"loss_type": list(loss_type), "beta": 0.1, **config}


def cpo(loss_type, **config):
    return "cpo", {"loss_type": loss_type, "beta": 0.1, **config}


CASES = {
    "dpo": dpo("sigmoid"),
    "robust": dpo("robust", label_smoothing=0.1),
    "ipo": dpo("ipo"),
    "hinge": dpo("hinge"),
    "exo_pair": dpo("exo_pair", label_smoothing=1e-3),
    "nca_pair": dpo("nca_pair"),
    "bco_pair": dpo("bco_pair"),
    "sppo_hard": dpo("sppo_hard"),
    "apo_zero": dpo("apo_zero"),
    "apo_down": dpo("apo_down"),
    "discopop": dpo("discopop"),
    "sigmoid_norm": dpo("sigmoid_norm", beta=1.0),
    "aot": dpo("aot"),
    "aot_label_smoothing": dpo("aot", label_smoothing=0.2),
    "aot_unpaired": dpo("aot_unpaired"),
    "sft": dpo("sft"),
    "mpo": dpo("sigmoid", "bco_pair", "sft", loss_weights=[0.8, 0.2, 1.0]),
    "rpo": dpo("sigmoid", "sft", loss_weights=[1.0, 0.005]),
    # e^-c grows so fast that a larger beta ends at losses below 1e-30, of which relative errors say nothing.
    "dpo_forward_kl": dpo("sigmoid", beta=0.01, f_divergence_type="forward_kl"),
    "dpo_js": dpo("sigmoid", f_divergence_type="js_divergence"),
    "dpo_alpha": dpo("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.5),
    "ipo_js": dpo("ipo", f_divergence_type="js_divergence"),
    "dpo_ld": dpo("sigmoid", ld_alpha=0.5),
    "dpo_wpo": dpo("sigmoid", use_weighting=True),
    "dpo_tr": dpo("sigmoid", sync_ref_model=True, ref_model_sync_steps=3, ref_model_mixup_alpha=0.6),
    "cpo": cpo("sigmoid"),
    "dpo_label_smoothing": cpo("sigmoid", label_smoothing=0.2, cpo_alpha=0.0),
    "cpo_hinge": cpo("hinge", cpo_alpha=0.0),
    "cpo_ipo": cpo("ipo", cpo_alpha=0.0),
    "simpo": cpo("simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0),
    "alphapo": cpo("alphapo", beta=2.0, simpo_gamma=1.0, alpha=0.25),
    "orpo": ("orpo", {"beta": 0.1}),
    "kto": ("kto", {"loss_type": "kto", "beta": 0.1}),
    "kto_weights": ("kto", {"loss_type": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.5}),
    "apo_zero_unpaired": ("kto", {"loss_type": "apo_zero_unpaired", "beta": 0.1}),
}


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


# Answers of the pairs, so that each batch of 4 has both labels but not as many of one as of the other.
UNPAIRED = [(0, True), (0, False), (1, True), (2, True), (3, False), (4, True), (5, False), (6, False)]


def unpaired(pairs):
    return [
        {"prompt": pairs[i]["prompt"], "completion": pairs[i]["chosen" if label else "rejected"], "label": label}
        for i, label in UNPAIRED
    ]


def text(ids):
    return "".join(f" w{i}" for i in ids)


def as_text(record):
    return {key: text(value) if isinstance(value, list) else value for key, value in record.items()}


def lora_config():
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")


def load_model():
    model = LlamaForCausalLM.from_pretrained(HERE.parent / "tiny_llama", dtype=torch.float32)
    return model.double()


def recording(trainer_class):
    class RecordingTrainer(trainer_class):
        """Keeps the loss before the Trainer rounds it for its log."""

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.recorded_losses = getattr(self, "recorded_losses", []) + [loss.item()]
            return loss

    return RecordingTrainer


def settings(folder, mode):
    return dict(
        output_dir=folder, learning_rate=LEARNING_RATES[mode], lr_scheduler_type="constant", warmup_steps=0,
        optim="adamw_torch", adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.0, max_grad_norm=1.0,
        per_device_train_batch_size=4, gradient_accumulation_steps=1, max_steps=STEPS, logging_steps=1,
        train_sampling_strategy="sequential", save_strategy="no", report_to="none", bf16=False, fp16=False,
        use_cpu=True, gradient_checkpointing=False, disable_tqdm=True,
    )


def seen_by(kind, trainer):
    """The ids that the trainer made of the text."""
    rows = trainer.train_dataset
    if kind == "dpo":
        return [{key: row[f"{key}_ids"] for key in ("prompt", "chosen", "rejected")} for row in rows]
    if kind == "kto":
        return [
            {"prompt": row["prompt_ids"], "completion": row["completion_ids"], "label": bool(row["label"])} for row in rows
        ]
    return [
        {
            "prompt": row["prompt_input_ids"],
            **{side: [i for i in row[f"{side}_labels"] if i != -100] for side in ("chosen", "rejected")},
        }
        for row in rows
    ]


def run(kind, config, mode, records):
    config_class, trainer_class = TRAINERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(**settings(folder, mode), **config)
        arguments = dict(
            model=load_model(), args=args, train_dataset=Dataset.from_list([as_text(r) for r in records]),
            processing_class=tokenizer(),
        )
        if mode == "lora":
            arguments["peft_config"] = lora_config()
        elif kind in ("dpo", "kto"):
            arguments["ref_model"] = load_model()
        trainer = recording(trainer_class)(**arguments)
        if mode == "lora":
            state = load_file(HERE / "lora" / "adapter_model.safetensors")
            assert not set_peft_model_state_dict(trainer.model, state).unexpected_keys
            trainer.model.double()
        seen = seen_by(kind, trainer)
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "logps/chosen" in entry]
    assert len(logged) == len(trainer.recorded_losses) == STEPS
    for entry, loss in zip(logged, trainer.recorded_losses):
        entry["loss"] = loss
    names = [name for name in logged[0] if name not in NOT_KEPT]
    return seen, {name: [float(f"{float(entry[name]):.8g}") for entry in logged] for name in names}


def make_adapter():
    torch.manual_seed(5)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(HERE.parent / "tiny_llama"), lora_config())
    assert all(not v.any() for k, v in get_peft_model_state_dict(model).items() if "lora_B" in k)
    model.peft_config["default"].base_model_name_or_path = "tiny_llama"
    model.save_pretrained(HERE / "lora")
    (HERE / "lora" / "README.md").unlink(missing_ok=True)
    path = HERE / "lora" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()  # a set, whose order is another each time
    path.write_text(json.dumps(config, indent=2) + "\n")


def write(name, value):
    (HERE / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore")
    names = sys.argv[1:] or list(CASES)
    if not sys.argv[1:]:
        make_adapter()
    patch_to_f64()
    pairs = random_pairs()
    records = {"kto": unpaired(pairs)}
    made = {kind: {} for kind in TRAINERS}
    for kind in made:
        path = HERE / f"{kind}.json"
        if sys.argv[1:] and path.exists():
            made[kind] = json.loads(path.read_text())
    ids = {}
    for name in names:
        kind, config = CASES[name]
        made[kind][name] = {"trainer": kind, "config": config}
        for mode in LEARNING_RATES:
            if mode == "lora" and config.get("sync_ref_model"):
                continue  # TRL refuses it
            seen, made[kind][name][mode] = run(kind, config, mode, records.get(kind, pairs))
            form = "unpaired" if kind == "kto" else "pairs"
            assert ids.setdefault(form, seen) == seen, name
            print(name, mode, made[kind][name][mode]["loss"][0], made[kind][name][mode]["loss"][-1], flush=True)
    for kind, cases in made.items():
        write(f"{kind}.json", {name: cases[name] for name in CASES if name in cases})
    if not sys.argv[1:]:
        write("pairs.json", {
            "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")},
            "settings": {
                "learningRate": LEARNING_RATES, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weightDecay": 0,
                "maxGradNorm": 1, "batchSize": 4,
            },
            **ids,
        })


if __name__ == "__main__":
    main()
