/**
 * What cannot be trained, asked for by flags: refused with the reason, before anything is written.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { InputError } from "../../train/errors.ts";
import { TrainingError } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { trainInProcess } from "./in_process.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "./user.ts";

/** A folder with a model and data of several kinds. */
async function workspace(): Promise<{ folder: string; flags: (data: string) => string[] }> {
  const folder = temporaryFolder();
  await writeCheckpoint(join(folder, "model"));
  const logps = { reference_chosen_logps: -3, reference_rejected_logps: -4 };
  await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  await writeLines(join(folder, "scored.jsonl"), DIGIT_PAIRS.map((pair) => ({ ...pair, ...logps })));
  const labelled = DIGIT_PAIRS.flatMap(({ prompt, chosen, rejected }) => [
    { prompt, completion: chosen, label: true },
    { prompt, completion: rejected, label: false },
  ]);
  await writeLines(join(folder, "labelled.jsonl"), labelled);
  return {
    folder,
    flags: (data) => [
      ...["--model", join(folder, "model"), "--data", join(folder, data), "--output", join(folder, "run")],
      ...["--max-steps", "2", "--batch-size", "4", "--log-every", "1", "--learning-rate", "1e-2"],
    ],
  };
}

/** Data, flags, and the message. */
const REFUSED: [string, string[], RegExp][] = [
  ["pairs.jsonl", ["--beta", "-1"], /^Cannot use --beta: expected more than 0, found -1$/],
  [
    "pairs.jsonl",
    ["--loss", "hinge", "--label-smoothing", "0.1"],
    /^Cannot use --label-smoothing: expected a loss that reads it \(dpo, .*\), found hinge$/,
  ],
  [
    "pairs.jsonl",
    ["--loss", "aot", "--use-weighting"],
    /^Cannot use --use-weighting: expected a loss of single pairs, found aot, which sorts the batch/,
  ],
  ["missing.jsonl", [], /missing\.jsonl/],
  [
    "labelled.jsonl",
    ["--loss", "kto", "--spo.solver", "penalty"],
    /^Cannot use --spo\.solver: expected a pairwise loss, found kto$/,
  ],
  ["labelled.jsonl", ["--loss", "apo_zero_unpaired", "--spo.rho", "1"], /^Cannot use --spo\.rho: expected /],
  [
    "labelled.jsonl",
    ["--loss", "kto", "--label-smoothing", "0.1"],
    /^Cannot use --label-smoothing: expected /,
  ],
  [
    "pairs.jsonl",
    ["--loss", "exo_pair", "--label-smoothing", "0"],
    /^Cannot use --label-smoothing with exo_pair: expected more than 0, found 0$/,
  ],
  [
    "pairs.jsonl",
    ["--loss", "simpo", "--label-smoothing", "0.1"],
    /^Cannot use --label-smoothing: expected a loss/,
  ],
  [
    "pairs.jsonl",
    ["--loss", "simpo", "--precompute-reference=false"],
    /^Cannot use --precompute-reference: expected a loss that reads the reference, found simpo$/,
  ],
  [
    "pairs.jsonl",
    ["--loss", "orpo", "--lora.rank", "2", "--lora.reference", "base"],
    /^Cannot use --lora\.reference: expected a loss that reads the reference, found orpo$/,
  ],
  [
    "pairs.jsonl",
    ["--reference-free", "--sync-ref-model", "--precompute-reference=false"],
    /^Cannot use --sync-ref-model: expected a loss that reads the reference, found dpo$/,
  ],
  [
    "scored.jsonl",
    ["--loss", "cpo"],
    /^Cannot train with cpo: expected records without reference log-probs, which it does not read, found .*scored\.jsonl:1$/,
  ],
  [
    "scored.jsonl",
    ["--reference-free"],
    /^Cannot train with dpo: expected records without reference log-probs/,
  ],
  [
    "scored.jsonl",
    ["--precompute-reference=false"],
    /^Cannot use --precompute-reference=false: expected records without reference log-probs, found .*scored\.jsonl:1$/,
  ],
];

/** Asks for a run that must be refused, in one line and before anything is written. */
async function assertRefused(
  gpu: Gpu,
  { folder, flags, message }: { folder: string; flags: readonly string[]; message: RegExp },
): Promise<void> {
  await assert.rejects(trainInProcess(gpu, flags), (error: Error) => {
    assert.ok(error instanceof InputError, `${flags.join(" ")}: ${error.stack}`);
    assert.ok(!error.message.includes("\n"), error.message);
    assert.match(error.message, message);
    return true;
  });
  assert.ok(!existsSync(join(folder, "run")), "nothing is written");
}

gpuTest("the command line refuses what a loss cannot honour, with the reason", async (gpu) => {
  const { folder, flags } = await workspace();
  for (const [data, more, message] of REFUSED) {
    await assertRefused(gpu, { folder, flags: [...flags(data), ...more], message });
  }
  const noData = ["--model", join(folder, "model"), "--output", join(folder, "run")];
  await assertRefused(gpu, { folder, flags: noData, message: /expected --model and --data together/ });
  await assert.rejects(
    trainInProcess(gpu, [...flags("labelled.jsonl"), "--loss", "kto", "--batch-size=1"]),
    /expected it once, found it twice/,
  );
});

/** Lines of data that cannot be trained on, and the message. */
const SPOILED_DATA: [string, unknown[], RegExp][] = [
  ["no records", [], /pairs\.jsonl: expected records, found an empty file/],
  [
    "no record that is not skipped",
    [{ prompt: "1+1:", chosen: "2$", rejected: "2$" }],
    /pairs\.jsonl: expected a usable record/,
  ],
  [
    "a prompt longer than the maximum",
    [{ prompt: "1".repeat(70), chosen: "1$", rejected: "2$" }],
    /pairs\.jsonl:1/,
  ],
];

/** Keys of config.json that are not what the weights and the tokenizer are, and the message. */
const SPOILED_CONFIG: [Record<string, unknown>, RegExp][] = [
  [{ model_type: "mamba" }, /config\.json.*model_type.*mamba/],
  [{ intermediate_size: 64 }, /model\.safetensors.*proj/],
  [{ num_hidden_layers: 3 }, /model\.safetensors.*layers\.2.*no such tensor/],
  [{ vocab_size: 12 }, /at most 12 ids .*found 16/],
];

for (const [name, records, message] of SPOILED_DATA) {
  gpuTest(`data with ${name} is refused`, async (gpu) => {
    const { folder, flags } = await workspace();
    await writeLines(join(folder, "pairs.jsonl"), records);
    await assertRefused(gpu, { folder, flags: flags("pairs.jsonl"), message });
  });
}

for (const [change, message] of SPOILED_CONFIG) {
  gpuTest(`a model is refused whose config.json has ${JSON.stringify(change)}`, async (gpu) => {
    const { folder, flags } = await workspace();
    const file = join(folder, "model", "config.json");
    const config = JSON.parse(await Deno.readTextFile(file));
    await Deno.writeTextFile(file, JSON.stringify({ ...config, ...change }));
    await assertRefused(gpu, { folder, flags: flags("pairs.jsonl"), message });
  });
}

gpuTest(
  "next to what is refused: columns for SPO's regularizer, and for losses that read them",
  async (gpu) => {
    const { flags } = await workspace();
    const rho = ["--spo.solver", "penalty", "--spo.rho", "0.1"];
    for (const more of [["--loss", "dpo"], ["--loss", "cpo", ...rho], ["--reference-free", ...rho]]) {
      const { records } = await trainInProcess(gpu, [...flags("scored.jsonl"), ...more]);
      assert.equal(records.length, 2);
    }
    for (const loss of ["simpo", "dpo"]) {
      const lora = ["--lora.rank", "2"];
      const { config } = await trainInProcess(gpu, [...flags("pairs.jsonl"), "--loss", loss, ...lora]);
      // What config.json holds can be given back.
      assert.equal("precomputeReference" in config, loss === "dpo");
      assert.equal("reference" in (config.lora as Record<string, unknown>), loss === "dpo");
    }
  },
);

gpuTest("a reference that the cache holds wrongly is found out by the first loss", async (gpu) => {
  const { folder, flags } = await workspace();
  await trainInProcess(gpu, flags("pairs.jsonl"));
  const cache = join(folder, "reference-logps");
  for await (const { name } of Deno.readDir(cache)) {
    // Other values under a right digest: what damage alone cannot make.
    const bytes = await Deno.readFile(join(cache, name));
    const values = new Float32Array(bytes.buffer, 0, (bytes.length - 32) / 4).map((value, index) =>
      value - index
    );
    const digest = createHash("sha256").update(new Uint8Array(values.buffer)).digest();
    await Deno.writeFile(join(cache, name), Uint8Array.from([...new Uint8Array(values.buffer), ...digest]));
  }
  await assert.rejects(trainInProcess(gpu, flags("pairs.jsonl")), (error: Error) => {
    assert.ok(error instanceof TrainingError, error.stack);
    assert.match(
      error.message,
      /^Cannot trust the reference: expected a first loss of 0\.69\d* \(policy = reference\)/,
    );
    return true;
  });
  // Another loss, of which no first value is known, has nothing to show it by; another seed changes nothing in it.
  await assert.rejects(trainInProcess(gpu, [...flags("pairs.jsonl"), "--loss", "ipo"]), TrainingError);
});

Deno.test("kto from the command line: labelled answers in, a model that prefers them out", async () => {
  const { folder, flags } = await workspace();
  const words = (more: string[]) => [...flags("labelled.jsonl"), "--loss", "kto", ...more];
  const out = await succeed("train", [
    ...words(["--undesirable-weight", "1.5", "--beta", "0.5"]).map((word) => word === "2" ? "20" : word),
  ]);
  assert.match(out, /labelled\.jsonl: 8 desirable and 8 undesirable answers/);
  const lines = (await Deno.readTextFile(join(folder, "run", "metrics.jsonl"))).trim().split("\n");
  const records = lines.map((line) => JSON.parse(line));
  assert.equal(records.length, 20);
  for (const name of ["loss", "kl", "grad_norm", "logps/chosen"]) {
    assert.ok(records.every((record) => record[name] === undefined || Number.isFinite(record[name])), name);
  }
  assert.ok(records.some(({ kl }) => kl >= 0));
  const { results } = JSON.parse(await Deno.readTextFile(join(folder, "run", "results.json")));
  assert.ok(results[1].evaluation.rewardMargin > 0.05, JSON.stringify(results[1]));
  const config = JSON.parse(await Deno.readTextFile(join(folder, "run", "config.json")));
  assert.deepEqual([config.beta, config.desirableWeight, config.undesirableWeight], [0.5, 1, 1.5]);
  for (const key of ["spo", "promptSharing", "precomputeReference"]) assert.ok(!(key in config), key);
  const again = await runTask("train", [
    ...[
      "--config",
      join(folder, "run", "config.json"),
      "--output",
      join(folder, "again"),
      "--max-steps",
      "2",
    ],
  ]);
  assert.equal(again.code, 0, again.error);
  const one = words([]).map((word) => word === "4" ? "1" : word);
  const refused = await runTask("train", [...one, "--overwrite"]);
  assert.equal(refused.code, 1);
  assert.match(
    refused.error,
    /^error: Cannot use --batch-size: expected at least 2 with kto, whose KL estimate pairs a prompt with another's answer, found 1$/m,
  );
});
