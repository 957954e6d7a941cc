/**
 * A run that is saved and goes on equals one that was never interrupted, bit for bit; and each number that is saved is
 * one that the rest of a run needs.
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { type Tensor, writeHost } from "../../engine/tensor.ts";
import { addLora } from "../../train/adapters/lora.ts";
import type { RunState } from "../../train/checkpoints/run_state.ts";
import { liveReference } from "../../train/live_reference.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { parseSpoOptions, type SpoOptions } from "../../train/losses/spo.ts";
import { resolveUnpairedLoss } from "../../train/losses/unpaired.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { unpairedObjective } from "../../train/objectives/kto.ts";
import { referenceLogps } from "../../train/reference.ts";
import { spoStrategy } from "../../train/solvers/spo_strategy.ts";
import { train, TrainingError, type TrainOptions, type TrainState } from "../../train/trainer.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { randomCompletions, randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(18, 5);
const COMPLETIONS = randomCompletions(18, 3);
const SFT = randomCompletions(7, 8);
const STEPS = 7;

/** What kind of run; everything is made anew from the same start. */
interface Case {
  readonly model?: Parameters<typeof tinyModel>[1] & { rank?: number };
  readonly objective: (model: Model, disposed: DisposableStack) => Promise<Objective>;
  readonly train?: Partial<TrainOptions>;
  /** Names of tensors and numbers without which the rest of a run is another, besides {@link ALWAYS}. */
  readonly needs?: readonly string[];
}

const preferences = (
  name: PairLossKey,
  given: Partial<SpoOptions> = {},
  options: { live?: { sync?: { alpha: number; steps: number } }; separate?: boolean } = {},
): Case["objective"] =>
async (model, disposed) =>
  preferenceObjective(model, {
    pairs: PAIRS,
    reference: options.live
      ? disposed.use(liveReference(model, options.live))
      : await referenceLogps(model, PAIRS),
    loss: PAIR_LOSSES[name].resolve({}),
    ...spoStrategy(parseSpoOptions(given), {
      maxSteps: STEPS,
      chosen: PAIRS.map(({ chosen }) => chosen),
      ...(options.separate ? { sft: { completions: SFT, batchSize: 3 } } : {}),
    }),
  });

/** What every run needs; asked of one case for each kind of weights, since it is the same code in all of them. */
const ALWAYS = [
  "model/block0",
  "optimizer/block0/moment1",
  "optimizer/block0/moment2",
  "optimizer/steps",
  "trainer/metrics",
  "trainer/step",
];

const optimizer = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 };
const sync = { alpha: 0.6, steps: 2 };
const dual = { solver: "penalty", lambdaSchedule: "dual", dualRate: 0.5, epsilon: 0.01 } as const;

const CASES: Record<string, Case> = {
  "dpo": { objective: preferences("dpo"), needs: ALWAYS },
  "dpo, LoRA": { model: { trainable: false, rank: 2 }, objective: preferences("dpo"), needs: ALWAYS },
  "dpo, LoRA, the start as live reference": {
    model: { trainable: false, rank: 2 },
    objective: preferences("dpo", {}, { live: {} }),
  },
  "dpo in f16 with steps that overflow": {
    model: { dtype: "f16" },
    objective: preferences("dpo"),
    train: { optimizer: { ...optimizer, lossScale: { initial: 2 ** 21, growthInterval: 2, minimum: 1 } } },
    needs: [...ALWAYS, "optimizer/clip", "optimizer/loss_scale"],
  },
  "dpo, three micro-batches under a token budget": {
    objective: preferences("dpo"),
    train: { gradientAccumulationSteps: 3, batchTokens: 40 },
  },
  "dpo, two files with weights, two epochs": {
    objective: preferences("dpo"),
    train: { parts: [{ weight: 3, count: 5 }, { weight: 1, count: 13 }] },
  },
  "TR-DPO": {
    objective: preferences("dpo", {}, { live: { sync } }),
    needs: ["objective/reference/block0"],
  },
  "TR-DPO in f16": {
    model: { dtype: "f16" },
    objective: preferences("dpo", {}, { live: { sync } }),
    needs: ["objective/reference/block0"],
  },
  "alphadpo": { objective: preferences("alphadpo"), needs: ["objective/loss/spo"] },
  "beta_dpo": { objective: preferences("beta_dpo"), needs: ["objective/loss/spo"] },
  "spo, initial v*": { objective: preferences("dpo", { solver: "penalty" }), needs: ["objective/loss/spo"] },
  "spo, dual lambda, tracked v*": {
    objective: preferences("dpo", {
      ...dual,
      ...{ vStar: "track", innerLearningRate: 0.1, trackSteps: 2, trackEvery: 3 },
    }),
    needs: ["objective/loss/spo", "solver/track/v_star", "solver/track/is_found"],
  },
  "spo, a lower level of its own, dual lambda": {
    objective: preferences("simpo", dual, { separate: true }),
    needs: ["solver/penalty/spo"],
  },
  "spo, alternating": {
    objective: preferences("dpo", { solver: "alternating", innerLearningRate: 1e-2 }),
    needs: ["solver/block0/moment1", "solver/block0/moment2", "solver/steps"],
  },
  "spo, alternating in f16": {
    model: { dtype: "f16" },
    objective: preferences("dpo", { solver: "alternating", innerLearningRate: 1e-2 }),
    train: { optimizer: { ...optimizer, lossScale: { initial: 2 ** 21, growthInterval: 2, minimum: 1 } } },
    needs: ["solver/clip", "solver/loss_scale"],
  },
  "spo, unrolled": {
    objective: preferences("dpo", { solver: "unrolled", innerLearningRate: 0.1, hypergradient: "hvp" }),
  },
  "kto": {
    objective: (model, disposed) =>
      Promise.resolve(unpairedObjective(model, {
        examples: COMPLETIONS.map((one, index) => ({ ...one, desirable: index % 3 !== 0 })),
        reference: disposed.use(liveReference(model)),
        loss: resolveUnpairedLoss("kto"),
      })),
  },
  "sft": { objective: (model) => Promise.resolve(sftObjective(model, COMPLETIONS)) },
};

/** Bytes of every tensor, and the numbers. */
interface Saved {
  readonly step: number;
  readonly tensors: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  readonly numbers: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Logged before. */
  readonly lines: number;
}

interface Outcome {
  readonly records: readonly MetricsRecord[];
  readonly weights: readonly string[];
  readonly saves: ReadonlyMap<number, Saved>;
}

interface Plan {
  /** Steps after which it is saved. */
  readonly saveAt?: readonly number[];
  readonly from?: Saved;
  /** A tensor or number that is left as the run starts with it. */
  readonly without?: string;
  readonly options?: Partial<TrainOptions>;
}

async function save(gpu: Gpu, { step, parts }: TrainState, lines: number): Promise<Saved> {
  const held = new Map<string, Tensor>();
  const numbers: Record<string, Record<string, number>> = {};
  for (const [part, state] of Object.entries(parts)) {
    for (const { name, tensor } of state.tensors) {
      assert.ok(name.startsWith(`${part}/`) && !held.has(name), "names are unique");
      held.set(name, tensor);
    }
    numbers[part] = { ...state.numbers() };
    assert.ok(Object.values(numbers[part]).every(Number.isFinite), JSON.stringify(numbers));
  }
  const values = await readAll(gpu, [...held.values()]);
  const tensors = new Map(Array.from(held.keys(), (name, index) => [name, values[index]]));
  return { step, tensors, numbers: JSON.parse(JSON.stringify(numbers)), lines };
}

function restore(saved: Saved, parts: RunState["parts"], without?: string): number {
  const names: string[] = [];
  for (const [part, state] of Object.entries(parts)) {
    for (const { name, tensor } of state.tensors) {
      names.push(name);
      if (name !== without) writeHost(tensor, saved.tensors.get(name)!);
    }
    const fresh = state.numbers();
    assert.deepEqual(Object.keys(fresh), Object.keys(saved.numbers[part]));
    state.restore(Object.fromEntries(
      Object.entries(saved.numbers[part]).map((
        [key, value],
      ) => [key, `${part}/${key}` === without ? fresh[key] : value]),
    ));
  }
  assert.deepEqual(names, [...saved.tensors.keys()]);
  return saved.step;
}

async function run(
  gpu: Gpu,
  { model: like = {}, objective: make, train: own }: Case,
  plan: Plan = {},
): Promise<Outcome> {
  const { rank, ...shape } = like;
  const whole = tinyModel(gpu, shape);
  using model = rank === undefined ? whole : addLora(
    whole,
    {
      ...{ rank, alpha: 4, targetModules: "all-linear", seed: 1, base: "tiny" },
    } as Parameters<typeof addLora>[1],
  );
  using disposed = new DisposableStack();
  const objective = disposed.use(await make(model, disposed));
  const records: MetricsRecord[] = [];
  const saves = new Map<number, Saved>();
  await train(objective, {
    optimizer,
    schedule: { kind: "cosine", learningRate: 1e-2, warmupSteps: 2, maxSteps: STEPS },
    ...{ batchSize: 6, seed: 4, logEvery: 3 },
    ...own,
    ...plan.options,
    onLog: ({ tokens_per_second: _, ...record }) => void records.push(record),
    checkpoints: {
      resume: plan.from && ((parts) => Promise.resolve(restore(plan.from!, parts, plan.without))),
      isDue: (step) => plan.saveAt?.includes(step) ?? false,
      save: async (state) => void saves.set(state.step, await save(gpu, state, records.length)),
    },
  });
  const tensors = model.trained.blocks.flatMap(({ weight, copy }) => copy ? [weight, copy] : [weight]);
  const weights = (await readAll(gpu, tensors)).map(bits);
  return { records, weights, saves };
}

/** Zeros of both signs are told apart. */
function bits(values: Float32Array<ArrayBuffer>): string {
  return Array.from(new Uint32Array(values.buffer), (word) => word.toString(16)).join(" ");
}

for (const [name, one] of Object.entries(CASES)) {
  gpuTest(
    `${name}: a run that goes on from a checkpoint equals one that was not interrupted`,
    async (gpu) => {
      const whole = await run(gpu, one);
      const saving = await run(gpu, one, { saveAt: [1, 3, 4, 5, STEPS] });
      assert.deepEqual(
        [saving.records, saving.weights],
        [whole.records, whole.weights],
        "saving changes nothing",
      );
      assert.deepEqual([...saving.saves.keys()], [1, 3, 4, 5, STEPS]);
      for (const from of saving.saves.values()) {
        const rest = await run(gpu, one, { from });
        assert.deepEqual(rest.weights, whole.weights, `weights after going on from step ${from.step}`);
        assert.deepEqual(rest.records, whole.records.slice(from.lines), `metrics from step ${from.step}`);
      }
      // What a run carries over is no more than it needs: each part that is left out is missed.
      const from = saving.saves.get(4)!;
      for (const without of one.needs ?? []) {
        const rest = await run(gpu, one, { from, without }).catch((error) => {
          assert.ok(error instanceof TrainingError || error instanceof RangeError, String(error));
        });
        assert.notDeepEqual(
          [rest?.records, rest?.weights],
          [whole.records.slice(from.lines), whole.weights],
          `${without} is not needed`,
        );
      }
    },
  );
}

gpuTest("a step with a number that is not finite is not saved, though no line is due", async (gpu) => {
  using model = tinyModel(gpu);
  model.parameters.write("model.norm.weight", new Float32Array(16).fill(NaN));
  using objective = sftObjective(model, COMPLETIONS);
  let saves = 0;
  const training = train(objective, {
    optimizer,
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 3 },
    ...{ batchSize: 6, seed: 4, logEvery: 3 },
    checkpoints: { isDue: () => true, save: () => Promise.resolve(void saves++) },
  });
  await assert.rejects(training, TrainingError);
  assert.equal(saves, 0);
});
