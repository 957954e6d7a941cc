import assert from "node:assert/strict";
import { join } from "node:path";
import { type Invocation, parseCommandLine } from "../../train/command_line.ts";
import { parseRunConfig, runConfigSchema } from "../../train/config.ts";
import { ConfigError } from "../../train/errors.ts";
import { OPTION_NAMES } from "../../train/option_names.ts";
import { listSettings } from "../../train/settings.ts";
import { OPTIONS_FILE, optionsDocument } from "./options_document.ts";

function parse(command: string, ...words: string[]): Invocation {
  const line = parseCommandLine([command, ...words]);
  assert.ok(!line.help);
  return line;
}

function ofFile(content: string | object, ...words: string[]): Invocation {
  const folder = Deno.makeTempDirSync();
  try {
    const isText = typeof content === "string";
    const path = join(folder, isText ? "run.yaml" : "run.json");
    Deno.writeTextFileSync(path, isText ? content : JSON.stringify(content));
    return parse("train", "--config", path, ...words);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function refuses(action: () => unknown, message: RegExp): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("a configuration of TRL's is a run, from a file and from flags in either spelling", () => {
  const config = {
    ...{ model_name_or_path: "m", output_dir: "o", loss_type: ["sigmoid", "bco_pair", "sft"] },
    ...{
      loss_weights: [0.8, 0.2, 1],
      beta: 0.1,
      learning_rate: 5e-6,
      lr_scheduler_type: "constant_with_warmup",
    },
    ...{ per_device_train_batch_size: 2, gradient_accumulation_steps: 4, max_steps: 10, warmup_steps: 2 },
    ...{
      optim: "adamw_torch_fused",
      gradient_checkpointing: true,
      fp16: false,
      bf16: false,
      logging_steps: 5,
    },
    ...{
      use_peft: true,
      lora_r: 8,
      lora_alpha: 16,
      lora_dropout: 0,
      lora_target_modules: ["q_proj", "v_proj"],
    },
    ...{ eval_strategy: "steps", eval_steps: 10, save_strategy: "steps", save_steps: 5, save_total_limit: 3 },
  };
  const expected = {
    ...{ model: "m", output: "o", loss: "sigmoid,bco_pair,sft", lossWeights: "0.8,0.2,1", beta: 0.1 },
    ...{ learningRate: 5e-6, learningRateSchedule: "constant", batchSize: 8, gradientAccumulationSteps: 4 },
    ...{ maxSteps: 10, warmupSteps: 2, activationCheckpointing: true, dtype: "f32", logEvery: 5 },
    ...{ lora: { rank: 8, alpha: 16, targetModules: "q_proj,v_proj" } },
    ...{ evalSteps: 10, saveSteps: 5, saveTotalLimit: 3 },
  };
  const { raw, source, given } = ofFile(config);
  assert.deepEqual(raw, expected);
  assert.equal(parseRunConfig(raw, source).batchSize, 8);
  assert.ok(given.has("batchSize") && !given.has("optim"));
  for (const spell of [(name: string) => name, (name: string) => name.replaceAll("_", "-")]) {
    const flags = Object.entries(config).map(([name, value]) => `--${spell(name)}=${value}`);
    assert.deepEqual(parse("train", ...flags).raw, expected);
  }
});

Deno.test("a configuration of axolotl's is a run", () => {
  const { raw, source } = ofFile(`base_model: m
rl: ipo
rl_beta: 0.2
sequence_len: 512
excess_length_strategy: truncate
micro_batch_size: 1
gradient_accumulation_steps: 8
optimizer: adamw_torch
lr_scheduler: linear
adapter: lora
lora_r: 4
lora_target_linear: true
`);
  assert.deepEqual(raw, {
    ...{ model: "m", loss: "ipo", beta: 0.2, maxLength: 512, overlong: "drop", batchSize: 8 },
    ...{ gradientAccumulationSteps: 8, learningRateSchedule: "linear" },
    lora: { rank: 4, targetModules: "all-linear" },
  });
  parseRunConfig(raw, source);
});

Deno.test("flags override a file under any name, and the product is of what holds in the end", () => {
  const file = { micro_batch_size: 2, gradient_accumulation_steps: 4, learning_rate: 1e-3 };
  assert.equal(ofFile(file, "--gradient-accumulation-steps", "8").raw.batchSize, 16);
  assert.equal(ofFile(file, "--batch-size", "12").raw.batchSize, 12);
  assert.equal(ofFile({ batchSize: 12 }, "--micro_batch_size=3").raw.batchSize, 3);
  const { raw, source } = ofFile(file, "--learning_rate", "5e-6");
  assert.deepEqual([raw.learningRate, source.describe(["learningRate"])], [5e-6, "--learning_rate"]);
  const bad = ofFile({ micro_batch_size: 0 });
  refuses(
    () => parseRunConfig(bad.raw, bad.source),
    /^Cannot use .*run\.json: key micro_batch_size: expected more than 0, found 0$/,
  );
});

const REFUSED: [object, RegExp][] = [
  [
    { num_train_epochs: 3 },
    /key num_train_epochs: expected maxSteps: a run counts steps.*, found TRL's num_train/,
  ],
  [{ datasets: [{ path: "a" }] }, /key datasets: expected data: files .*, found TRL and axolotl's datasets$/],
  [{ lora_dropout: 0.1 }, /key lora_dropout: expected 0, as there is no dropout, found 0\.1$/],
  [{ bf16: true }, /key bf16: expected false, as WGSL has no bf16: .*, found true$/],
  [
    { lr_scheduler_type: "constant" },
    /expected one of cosine, linear, constant_with_warmup \(.*\), found "constant"$/,
  ],
  [{ rl: "simpo" }, /key rl: expected one of dpo, ipo, orpo, kto \(simpo there adds.*\), found "simpo"$/],
  [{ optim: "adamw_8bit" }, /expected adamw_torch or adamw_torch_fused, as the optimizer is AdamW/],
  [{ use_peft: true }, /key use_peft: expected lora\.rank beside it \(.*lora_r\), found none$/],
  [
    { use_peft: false, lora_r: 4 },
    /key use_peft: expected no lora\.rank beside it \(.*\), found .*key lora_r$/,
  ],
  [{ eval_strategy: "epoch" }, /expected steps or no, as evaluation is by steps, found "epoch"$/],
  [{ eval_strategy: "no", eval_steps: 5 }, /expected no evalSteps beside it/],
  [{ sequence_len: 512 }, /key sequence_len: expected overlong beside it \(axolotl leaves out longer/],
  [{ beta: 1, rl_beta: 1 }, /key rl_beta: expected it once, found it twice \(also as .*key beta\)$/],
  [{ batchSize: 8, micro_batch_size: 2 }, /key micro_batch_size: expected it once, found it twice/],
  [{ simpo_gamma: 1 }, /expected gammaBetaRatio: the margin divided by beta, found/],
  [{ fp16: "auto" }, /key fp16: expected one of true, false .*, found "auto"$/],
  [
    { num_train_epoch: 1 },
    /expected a known setting, found none of that name \(did you mean num_train_epochs\?\)$/,
  ],
  [{ learning_rate: null }, /key learning_rate: expected a value, found null/],
  [{ spo: { learning_rate: 1 } }, /key spo\.learning_rate: expected a known setting/],
];
for (const [file, message] of REFUSED) {
  Deno.test(`refused: ${JSON.stringify(file)}`, () => refuses(() => ofFile(file), message));
}

Deno.test("as flags, refused names need no value, and double ones are told by both spellings", () => {
  refuses(() => parse("train", "--num-train-epochs"), /^Cannot use --num-train-epochs: expected maxSteps/);
  refuses(() => parse("train", "--bf16"), /^Cannot use --bf16: expected false/);
  assert.equal(parse("train", "--fp16").raw.dtype, "f16");
  refuses(() => parse("train", "--fp16", "True"), /^Cannot use "True": .* \(write --fp16=true\)$/);
  refuses(
    () => parse("train", "--learning-rate", "1", "--learning_rate", "1"),
    /^Cannot use --learning_rate: expected it once, found it twice \(also as --learning-rate\)$/,
  );
});

Deno.test("names belong to commands that share a run's settings, of which each reads its own", () => {
  assert.deepEqual(parse("profile", "--lora_r", "4").raw, { lora: { rank: 4 } });
  assert.deepEqual(parse("inspect", "--max_length", "4").raw, { maxLength: 4 });
  refuses(() => parse("inspect", "--lora_r", "4"), /expected a flag of inspect/);
  refuses(() => parse("eval", "--model_name_or_path", "m"), /expected a flag of eval/);
});

Deno.test("every name leads to a setting of a run, and none hides one", () => {
  const settings = new Set(listSettings(runConfigSchema).map(({ name }) => name));
  for (const [name, option] of Object.entries(OPTION_NAMES)) {
    assert.match(name, /^[a-z][a-z0-9]*(_[a-z0-9]+)*$/);
    assert.ok(!settings.has(name), name);
    if ("setting" in option) assert.ok(settings.has(option.setting), name);
    if ("setting" in option && option.beside) assert.ok(settings.has(option.beside), name);
    if ("switches" in option) assert.ok(settings.has(option.switches), name);
  }
});

Deno.test("docs/options.md is the table", async () => {
  const plain = (text: string) => text.replaceAll(/\s+/g, " ").replaceAll(/-+/g, "-");
  assert.equal(
    plain(await Deno.readTextFile(OPTIONS_FILE)),
    plain(optionsDocument()),
    "deno run -R -W tests/train/options_document.ts && deno fmt docs/options.md writes it",
  );
});
