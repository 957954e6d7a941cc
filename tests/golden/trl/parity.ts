/**
 * Runs TRL's golden cases in Keel, by its public API, and measures how far the numbers are apart.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Gpu } from "../../../engine/gpu.ts";
import { NO_PENALTY } from "../../../engine/ops/pair_loss.ts";
import { Tape } from "../../../engine/tape.ts";
import { fromHost, release } from "../../../engine/tensor.ts";
import { loadAdapter } from "../../../train/adapters/adapter_files.ts";
import type { EncodedExample, EncodedPair } from "../../../train/data/encode.ts";
import { liveReference } from "../../../train/live_reference.ts";
import { isUnpairedLoss, resolveUnpairedLoss } from "../../../train/losses/unpaired.ts";
import { resolvePairLoss } from "../../../train/losses/weighted_sum.ts";
import { createMetricsRing } from "../../../train/metrics.ts";
import type { Model } from "../../../train/models/model.ts";
import { loadModel } from "../../../train/models/model_files.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../../train/objective.ts";
import { unpairedObjective } from "../../../train/objectives/kto.ts";
import { createOptimizer } from "../../../train/optimizer.ts";
import { referenceLogps } from "../../../train/reference.ts";
import { lossOf, modelFolder } from "../../tiny_model.ts";
import { PARITY_CASES, type ParityCase } from "./cases.ts";

/** What is trained. */
export type ParityMode = "full" | "lora";

/** A case as TRL ran it: by name, a number a step. */
interface GoldenCase {
  readonly config: Readonly<Record<string, unknown>>;
  readonly full: Readonly<Record<string, readonly number[]>>;
  readonly lora?: Readonly<Record<string, readonly number[]>>;
}

interface GoldenData {
  readonly settings:
    & Record<"beta1" | "beta2" | "eps" | "weightDecay" | "maxGradNorm" | "batchSize", number>
    & { learningRate: Record<ParityMode, number> };
  readonly pairs: readonly Record<"prompt" | "chosen" | "rejected", number[]>[];
  readonly unpaired: readonly { prompt: number[]; completion: number[]; label: boolean }[];
}

function read<Content>(name: string): Content {
  return JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
}

const DATA: GoldenData = read("pairs.json");

/** Every golden run by name. */
export const GOLDEN: Readonly<Record<string, GoldenCase>> = Object.assign(
  {},
  ...["dpo.json", "cpo.json", "orpo.json", "kto.json"].map((name) => read<Record<string, GoldenCase>>(name)),
);

const STEPS = GOLDEN.dpo.full.loss.length;

const PAIRS: readonly EncodedPair[] = DATA.pairs.map(({ prompt: promptIds, chosen, rejected }, index) => {
  const source = { file: "pairs.json", index };
  const side = (completionIds: number[]) => ({ promptIds, completionIds, source });
  return { chosen: side(chosen), rejected: side(rejected), source };
});

const EXAMPLES: readonly EncodedExample[] = DATA.unpaired.map(({ prompt, completion, label }, index) => ({
  ...{ promptIds: prompt, completionIds: completion, desirable: label },
  source: { file: "pairs.json", index },
}));

/** How far a quantity of Keel's run is from TRL's: 1e-4 is the limit. */
export interface Deviation {
  /** TRL's name. */
  readonly name: string;
  /** The largest over the ten steps of |found - expected| / (|expected| + floor). */
  readonly deviation: number;
  /** The step of it, from 1. */
  readonly step: number;
  readonly found: number;
  readonly expected: number;
}

/** Opens what a case trains; the caller disposes it. */
async function openModel(gpu: Gpu, mode: ParityMode): Promise<Model> {
  const fixture = (file: string) => new URL(`../tiny_llama/${file}`, import.meta.url);
  const files = { "config.json": fixture("config.json"), "model.safetensors": fixture("model.safetensors") };
  const { model } = await loadModel(gpu, modelFolder(files, 48), { trainable: mode === "full" });
  if (mode === "full") return model;
  return await loadAdapter(model, fileURLToPath(new URL("lora/", import.meta.url)), { trainable: true });
}

/**
 * Ten steps of Keel in TRL's order of batches, which the trainer would shuffle.
 *
 * @param gpu The device.
 * @param options.name Of the case.
 * @param options.mode What is trained.
 * @returns A record a step.
 */
export async function runCase(
  gpu: Gpu,
  { name, mode }: { name: string; mode: ParityMode },
): Promise<Record<string, number>[]> {
  using model = await openModel(gpu, mode);
  const { loss, options, sync } = PARITY_CASES[name];
  if (isUnpairedLoss(loss)) {
    using reference = liveReference(model, { reference: "base" });
    using objective = unpairedObjective(model, {
      ...{ examples: EXAMPLES, reference, loss: resolveUnpairedLoss(loss, options) },
    });
    return await runSteps(objective, { mode });
  }
  if (sync) {
    using reference = liveReference(model, { sync });
    using objective = preferenceObjective(model, {
      ...{
        pairs: PAIRS,
        reference,
        lambda: 0,
        loss: resolvePairLoss(loss, { options }),
        spoAt: () => NO_PENALTY,
      },
    });
    return await runSteps(objective, { mode });
  }
  using objective = await objectiveOf(model, PARITY_CASES[name]);
  return await runSteps(objective, { mode });
}

async function objectiveOf(
  model: Model,
  { loss, weights, options, useWeighting }: ParityCase,
): Promise<Objective> {
  if (loss === "sft") return sftObjective(model, PAIRS.map(({ chosen }) => chosen));
  const resolved = resolvePairLoss(loss, { weights, options });
  const { ldAlpha } = resolved;
  return preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS, { ldAlpha }), lambda: 0 },
    loss: resolved,
    useWeighting,
    spoAt: () => NO_PENALTY,
  });
}

async function runSteps(
  objective: Objective,
  { mode }: { mode: ParityMode },
): Promise<Record<string, number>[]> {
  const { model } = objective;
  const { batchSize, learningRate, ...optimizerOptions } = DATA.settings;
  using optimizer = createOptimizer(model.trained, optimizerOptions);
  using ring = createMetricsRing(model.gpu, 1);
  const one = fromHost(model.gpu, Float32Array.of(1), { shape: [1] });
  const records: Record<string, number>[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const first = (step - 1) * batchSize % objective.count;
    const items = Uint32Array.from({ length: batchSize }, (_, index) => first + index);
    model.trained.zeroGradients();
    const tape = new Tape(model.gpu);
    tape.backward([{ tensor: lossOf(objective, { items, step, metrics: ring.tensor }), gradient: one }]);
    optimizer.step(learningRate[mode], ring.gradNorm(0));
    objective.afterStep?.(step);
    records.push(...await ring.read(1, objective.metricNames));
  }
  release(one);
  return records;
}

/**
 * Below which size a number's deviation is taken relative to this instead of to itself. Rewards are beta times
 * differences of sums of -20 to -30 nats, which cancel near zero: two roundings of 1e-6 each, at best.
 */
function floorOf(name: string, beta: number): number {
  return name.startsWith("rewards/") ? 0.5 * beta : name === "log_odds_chosen" ? 0.05 : 0;
}

/**
 * Compares a run with TRL's, in every number that both log and that means the same.
 *
 * @param records Of `runCase`.
 * @param options.name Of the case.
 * @param options.mode What was trained.
 * @returns In TRL's order.
 */
export function deviationsOf(
  records: readonly Record<string, number>[],
  { name, mode }: { name: string; mode: ParityMode },
): Deviation[] {
  const expected = GOLDEN[name][mode]!;
  const beta = Number(GOLDEN[name].config.beta);
  const { differs = [] } = PARITY_CASES[name];
  const names = Object.keys(expected).filter((key) => key in records[0] && !differs.includes(key));
  return names.map((key) =>
    largestDeviation(records, { key, expected: expected[key], floor: floorOf(key, beta) })
  );
}

function largestDeviation(
  records: readonly Record<string, number>[],
  { key, expected, floor }: { key: string; expected: readonly number[]; floor: number },
): Deviation {
  let largest: Deviation = {
    name: key,
    deviation: 0,
    step: 1,
    found: records[0][key],
    expected: expected[0],
  };
  for (const [index, record] of records.entries()) {
    // At policy = reference the two rewards are equal but for rounding, which then decides which is larger.
    if (index === 0 && key === "rewards/accuracies") continue;
    const [found, value] = [record[key], expected[index]];
    const distance = Math.abs(found - value);
    // A NaN must not pass for the smallest deviation.
    const deviation = distance === 0
      ? 0
      : Number.isNaN(distance)
      ? Infinity
      : distance / (Math.abs(value) + floor);
    if (deviation > largest.deviation) {
      largest = { name: key, deviation, step: index + 1, found, expected: value };
    }
  }
  return largest;
}
