/**
 * Names that other libraries have for Keel's settings: accepted in config files and as flags where the meaning is exactly
 * the same, refused with what to use instead where it is not. docs/options.md shows this table.
 *
 * Read in TRL 1.16.0 (DPOConfig, SFTConfig, KTOConfig, ModelConfig; CPOConfig, ORPOConfig of trl.experimental) on
 * transformers 5.24.0 (TrainingArguments), TRL 0.24.0 for what has gone since, PEFT 0.21.2 (LoraConfig) and
 * axolotl 0.19.0 (axolotl.utils.schemas).
 * @module
 */

/** Who has the name. TRL stands for the arguments of its trainers, transformers' included. */
export type Library = "TRL" | "PEFT" | "axolotl";

/** A word, number or truth value of an option. */
export type OptionValue = string | number | boolean;

/** Another name, and what becomes of it. */
export type OptionName = { readonly from: readonly Library[] } & OptionMeaning;

/** What a name of another library means here. */
export type OptionMeaning =
  /** A setting. */
  | {
    readonly setting: string;
    /** Its words there, and here; any other is refused. All are the same where this is left out. */
    readonly values?: Readonly<Record<string, OptionValue>>;
    /** A setting without which the meaning is another. */
    readonly beside?: string;
    /** A list there, joined by commas here. */
    readonly isList?: boolean;
    /** A number of each micro-batch: `batchSize` is it times `gradientAccumulationSteps`. */
    readonly isPerMicroBatch?: boolean;
    /** What to know, or why other words are refused. */
    readonly note?: string;
  }
  /** Whether a setting is given: `on` demands it, `off` forbids it. */
  | {
    readonly switches: string;
    readonly on: OptionValue;
    readonly off?: OptionValue;
    readonly note: string;
  }
  /** Something that is always so here: the other values are refused. */
  | { readonly always: readonly OptionValue[]; readonly note: string }
  /** Nothing with the same meaning; what to use instead. */
  | { readonly instead: string };

const TRL = ["TRL"] as const;
const PEFT = ["PEFT"] as const;
const AXOLOTL = ["axolotl"] as const;
const BOTH = ["TRL", "axolotl"] as const;
const ADAPTERS = ["TRL", "PEFT", "axolotl"] as const;

/** Settings whose name is the library's in snake case, and whose meaning is the same. */
const SPELLED_ALIKE: Readonly<Record<string, readonly Library[]>> = {
  learning_rate: BOTH,
  warmup_steps: BOTH,
  weight_decay: BOTH,
  adam_beta1: BOTH,
  adam_beta2: BOTH,
  adam_epsilon: BOTH,
  max_grad_norm: BOTH,
  gradient_accumulation_steps: BOTH,
  batch_size: AXOLOTL,
  max_steps: BOTH,
  max_length: TRL,
  eval_steps: BOTH,
  save_steps: BOTH,
  save_total_limit: BOTH,
  label_smoothing: TRL,
  f_divergence_type: TRL,
  f_alpha_divergence_coef: TRL,
  discopop_tau: TRL,
  cpo_alpha: BOTH,
  ld_alpha: TRL,
  reference_free: TRL,
  use_weighting: TRL,
  sync_ref_model: TRL,
  ref_model_mixup_alpha: TRL,
  ref_model_sync_steps: TRL,
  desirable_weight: TRL,
  undesirable_weight: TRL,
  assistant_only_loss: TRL,
  activation_checkpointing: TRL,
};

const NOTES: Readonly<Record<string, string>> = {
  warmup_steps: "a count of steps, not a share",
  eval_steps: "a count of steps, not a share; a multiple of logging_steps",
  save_steps: "a count of steps, not a share; saveMinutes saves besides, unless it is 0",
  label_smoothing: "dpo reads it, too, as conservative DPO; TRL's sigmoid passes it over",
  cpo_alpha: "of loss cpo; TRL adds it to simpo, hinge and ipo of CPOTrainer, too",
  reference_free: "of TRL 0.24.0",
};

const SCHEDULES = {
  values: { cosine: "cosine", linear: "linear", constant_with_warmup: "constant" },
  note: "constant there takes no warm-up: constant_with_warmup is the same without warmup_steps",
} as const;
const ADAMW = {
  always: ["adamw_torch", "adamw_torch_fused"],
  note: "the optimizer is AdamW, in f32",
} as const;
const NO_MIXED_KINDS = "train/eval splits are files of their own: data and evalData";
const NO_DROPOUT = { always: [0], note: "there is no dropout" } as const;
const STEPS_ONLY = "maxSteps: a run counts steps, which are epochs times records / batchSize";
const NO_QUANTIZATION = {
  always: [false],
  note: "a frozen model is stored in f32, f16 or bf16: baseDtype",
} as const;
const ALWAYS_FILES = "data: files on this machine, joined by commas; docs/data.md has their forms";

/** Every name, in snake case; as a flag it also comes with hyphens. */
export const OPTION_NAMES: Readonly<Record<string, OptionName>> = {
  // Model and data.
  model_name_or_path: { from: TRL, setting: "model" },
  base_model: { from: AXOLOTL, setting: "model" },
  output_dir: { from: BOTH, setting: "output" },
  sequence_len: {
    ...{ from: AXOLOTL, setting: "maxLength", beside: "overlong" },
    note:
      "axolotl leaves out longer records but with excess_length_strategy truncate, which is needed beside it",
  },
  truncation_mode: { from: TRL, setting: "truncation" },
  dataset_name: { from: TRL, instead: ALWAYS_FILES },
  datasets: { from: BOTH, instead: ALWAYS_FILES },
  test_datasets: { from: AXOLOTL, instead: "evalData: files on this machine, joined by commas" },
  val_set_size: { from: AXOLOTL, instead: NO_MIXED_KINDS },
  dataset_train_split: { from: TRL, instead: NO_MIXED_KINDS },
  dataset_test_split: { from: TRL, instead: NO_MIXED_KINDS },
  model_revision: { from: TRL, instead: "model: owner/name@revision" },
  lora_model_dir: { from: AXOLOTL, instead: "model: the folder of the adapter, which is trained on" },
  chat_template: { from: AXOLOTL, instead: "the template in the model's folder, and no setting" },
  trust_remote_code: { from: BOTH, always: [false], note: "code of a model's repository is never run" },
  max_prompt_length: { from: TRL, instead: "maxLength: prompt and completion together" },
  max_completion_length: { from: TRL, instead: "maxLength: prompt and completion together" },
  excess_length_strategy: {
    ...{ from: AXOLOTL, setting: "overlong", values: { truncate: "drop" } },
    note: "longer texts are truncated, and records left out whose prompt leaves no room",
  },
  train_on_inputs: { from: AXOLOTL, always: [false], note: "completions alone are learnt" },
  completion_only_loss: { from: TRL, always: [true], note: "completions alone are learnt" },
  packing: { from: TRL, instead: "no setting: batches have no padding" },
  sample_packing: { from: AXOLOTL, instead: "no setting: batches have no padding" },
  padding_free: { from: TRL, instead: "no setting: batches have no padding" },
  // What is minimised.
  loss_type: {
    ...{ from: TRL, setting: "loss", isList: true },
    note: "as in DPOConfig and KTOConfig; CPOConfig's sigmoid, hinge and ipo need referenceFree besides",
  },
  dpo_loss_type: { from: AXOLOTL, setting: "loss", isList: true },
  rl: {
    ...{ from: AXOLOTL, setting: "loss" },
    values: { dpo: "dpo", ipo: "ipo", orpo: "orpo", kto: "kto" },
    note: "simpo there adds CPO's likelihood: loss simpo, or simpo,sft; the others train on rewards",
  },
  loss_weights: { from: TRL, setting: "lossWeights", isList: true },
  dpo_loss_weights: { from: AXOLOTL, setting: "lossWeights", isList: true },
  rl_beta: { from: AXOLOTL, setting: "beta" },
  orpo_alpha: { from: AXOLOTL, setting: "beta" },
  dpo_label_smoothing: { from: AXOLOTL, setting: "labelSmoothing" },
  dpo_use_weighting: { from: AXOLOTL, setting: "useWeighting" },
  kto_desirable_weight: { from: AXOLOTL, setting: "desirableWeight" },
  kto_undesirable_weight: { from: AXOLOTL, setting: "undesirableWeight" },
  precompute_ref_log_probs: { from: BOTH, setting: "precomputeReference" },
  simpo_gamma: { from: BOTH, instead: "gammaBetaRatio: the margin divided by beta" },
  rpo_alpha: { from: TRL, instead: "loss dpo,sft with lossWeights 1 and the weight" },
  disable_dropout: { from: TRL, always: [true], note: "there is no dropout" },
  label_smoothing_factor: { from: TRL, always: [0], note: "labelSmoothing is of preferences" },
  precompute_ref_batch_size: {
    from: TRL,
    instead: "no setting: batchSize and batchTokens hold for the reference, too",
  },
  // Adapters.
  use_peft: {
    from: TRL,
    switches: "lora.rank",
    on: true,
    off: false,
    note: "the rank turns LoRA on: lora_r",
  },
  adapter: { from: AXOLOTL, switches: "lora.rank", on: "lora", note: "the rank turns LoRA on: lora_r" },
  r: { from: PEFT, setting: "lora.rank" },
  lora_r: { from: BOTH, setting: "lora.rank" },
  lora_alpha: { from: ADAPTERS, setting: "lora.alpha" },
  target_modules: { from: PEFT, setting: "lora.targetModules", isList: true },
  lora_target_modules: { from: BOTH, setting: "lora.targetModules", isList: true },
  lora_target_linear: {
    from: AXOLOTL,
    setting: "lora.targetModules",
    values: { true: "all-linear" },
    note: "name the layers",
  },
  use_rslora: { from: ["TRL", "PEFT"], setting: "lora.rslora" },
  peft_use_rslora: { from: AXOLOTL, setting: "lora.rslora" },
  lora_dropout: { from: ADAPTERS, ...NO_DROPOUT },
  use_dora: { from: ["TRL", "PEFT"], always: [false], note: "there is no DoRA" },
  peft_use_dora: { from: AXOLOTL, always: [false], note: "there is no DoRA" },
  bias: { from: PEFT, always: ["none"], note: "an adapter has no biases" },
  modules_to_save: { from: PEFT, instead: "no setting: beside an adapter nothing else is trained" },
  lora_modules_to_save: { from: BOTH, instead: "no setting: beside an adapter nothing else is trained" },
  load_in_4bit: { from: BOTH, ...NO_QUANTIZATION },
  load_in_8bit: { from: BOTH, ...NO_QUANTIZATION },
  // The optimizer and its steps.
  per_device_train_batch_size: { from: TRL, setting: "batchSize", isPerMicroBatch: true },
  micro_batch_size: { from: AXOLOTL, setting: "batchSize", isPerMicroBatch: true },
  lr_scheduler_type: { from: TRL, setting: "learningRateSchedule", ...SCHEDULES },
  lr_scheduler: { from: AXOLOTL, setting: "learningRateSchedule", ...SCHEDULES },
  optim: { from: TRL, ...ADAMW },
  optimizer: { from: AXOLOTL, ...ADAMW },
  gradient_checkpointing: {
    from: BOTH,
    setting: "activationCheckpointing",
    values: { true: true, false: false },
    note: "activations stay on the GPU",
  },
  num_train_epochs: { from: TRL, instead: STEPS_ONLY },
  num_epochs: { from: AXOLOTL, instead: STEPS_ONLY },
  warmup_ratio: { from: BOTH, instead: "warmupSteps: the share times maxSteps" },
  neftune_noise_alpha: { from: BOTH, instead: "no setting: nothing adds noise to embeddings" },
  // The run.
  fp16: {
    ...{ from: BOTH, setting: "dtype", values: { true: "f16", false: "f32" } },
    note: "activations and kernels in f16 with loss scaling, updates in f32",
  },
  bf16: { from: BOTH, always: [false], note: "WGSL has no bf16: fp16, or f32 as it is without" },
  torch_dtype: {
    from: TRL,
    instead: "dtype f32 or f16; the saved model keeps the type of the one that it started from",
  },
  tf32: { from: BOTH, always: [false], note: "there are no tensor cores in WGSL" },
  logging_steps: { from: BOTH, setting: "logEvery" },
  eval_strategy: {
    from: BOTH,
    switches: "evalSteps",
    on: "steps",
    off: "no",
    note: "evaluation is by steps",
  },
  save_strategy: {
    ...{ from: BOTH, switches: "saveSteps", on: "steps" },
    note: "checkpoints come by steps (saveSteps) and by time; saveMinutes 0 leaves them out",
  },
  logging_strategy: { from: TRL, always: ["steps"], note: "metrics come every logging_steps" },
  per_device_eval_batch_size: { from: TRL, instead: "no setting: evaluation takes batches as training does" },
  eval_batch_size: { from: AXOLOTL, instead: "no setting: evaluation takes batches as training does" },
  data_seed: { from: TRL, instead: "seed, which is also that of the data's order" },
  overwrite_output_dir: { from: TRL, instead: "overwrite, to replace a run, or resume, to go on with it" },
  resume_from_checkpoint: { from: BOTH, instead: "resume, with the folder of the run as output" },
  load_best_model_at_end: {
    from: BOTH,
    instead: "no setting: the best checkpoint is kept beside the last ones",
  },
  early_stopping_patience: { from: AXOLOTL, instead: "no setting: a run ends at maxSteps" },
  report_to: { from: TRL, instead: "no setting: metrics.jsonl, which deno task report shows" },
  push_to_hub: { from: TRL, always: [false], note: "nothing is uploaded" },
  hub_model_id: { from: BOTH, instead: "no setting: nothing is uploaded" },
  deepspeed: { from: BOTH, instead: "no setting: there is none" },
  fsdp: { from: BOTH, instead: "no setting: there is none" },
  ...Object.fromEntries(
    Object.entries(SPELLED_ALIKE).map(([name, from]): [string, OptionName] => {
      const note = NOTES[name];
      return [name, { from, setting: camelCase(name), ...(note === undefined ? {} : { note }) }];
    }),
  ),
};

function camelCase(name: string): string {
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
