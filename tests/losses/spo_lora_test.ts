/**
 * SPO around every pairwise loss on an adapter, and with a reference that runs in every step.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { toHost } from "../../engine/tensor.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { liveReference } from "../../train/live_reference.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { parseSpoOptions, type SpoOptions } from "../../train/losses/spo.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { spoStrategy } from "../../train/solvers/spo_strategy.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(6, 11);

interface Options {
  loss: PairLossKey;
  isLora?: boolean;
  /** The policy has left the reference: nothing then depends on the sign of a rounding. */
  isOther?: boolean;
  isLive?: boolean;
}

/** Two steps of a fresh model, or of an adapter on it. */
async function run(gpu: Gpu, given: Partial<SpoOptions>, options: Options) {
  const { loss, isLora = true, isOther = false, isLive = false } = options;
  const base = tinyModel(gpu, { trainable: !isLora });
  using model = isLora ? addLora(base, { rank: 2 }) : base;
  if (isLora && isOther) trainAdapter(model);
  const strategy = spoStrategy(parseSpoOptions(given), {
    ...{ maxSteps: 2, chosen: PAIRS.map(({ chosen }) => chosen) },
  });
  using live = liveReference(model, { reference: isLora ? "base" : "start" });
  if (!isLora && isOther) await scaleWeights(model);
  using objective = preferenceObjective(model, {
    pairs: PAIRS,
    reference: isLive ? live : await referenceLogps(live.model, PAIRS),
    loss: PAIR_LOSSES[loss].resolve({}),
    ...strategy,
    startsAtReference: !isOther,
  });
  const records: MetricsRecord[] = [];
  let clock = 0;
  await train(objective, {
    // An eps that keeps rounding of tiny gradients from becoming whole steps.
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-3, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 2 },
    ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1 },
    now: () => clock += 1000,
    onLog: (record) => void records.push(record),
  });
  const weights: number[] = [];
  for (const { weight } of model.trained.blocks) weights.push(...await toHost(weight));
  return { records, weights };
}

/** Gives a fresh adapter second factors that are not zero. */
function trainAdapter({ trained }: Model): void {
  const random = seededRandom(4);
  for (const [name, [rows, columns]] of trained.shapes) {
    if (!name.includes("lora_B")) continue;
    trained.write(name, Float32Array.from(normals(random, { length: rows * columns, scale: 0.3 })));
  }
}

async function scaleWeights({ parameters }: Model): Promise<void> {
  for (const name of parameters.shapes.keys()) {
    parameters.write(name, (await parameters.read(name)).map((value) => 1.2 * value));
  }
}

/** Penalties that act, each otherwise. */
const ACTING: Partial<SpoOptions>[] = [
  { solver: "penalty", lambda: 2 },
  { solver: "penalty", lambda: 2, penalty: "quadratic", vStar: 0.5 },
  { solver: "penalty", rho: 0.5, margin: 5, vStar: 0.5 },
];

const numbersOf = (records: readonly MetricsRecord[]) => records.flatMap((record) => Object.entries(record));

/** Panel entries that a penalty alone has. */
const OF_SPO = /^spo\/(v_star|gap|lambda)$/;

for (const [index, loss] of (Object.keys(PAIR_LOSSES) as PairLossKey[]).entries()) {
  gpuTest(
    `${loss} on an adapter: SPO with lambda 0 is the loss alone, to the bit; otherwise it acts`,
    async (gpu) => {
      const plain = await run(gpu, {}, { loss });
      const idle = await run(gpu, { solver: "penalty", lambda: 0, vStar: 0.5 }, { loss });
      const kept = (records: readonly MetricsRecord[]) =>
        numbersOf(records).filter(([name]) => !OF_SPO.test(name));
      assert.deepEqual(idle.weights, plain.weights);
      assert.deepEqual(kept(idle.records), kept(plain.records));
      for (const spo of [ACTING[index % ACTING.length]]) {
        const { records, weights } = await run(gpu, spo, { loss });
        for (const [name, value] of numbersOf(records)) assert.ok(Number.isFinite(value), `${name} ${value}`);
        assert.notDeepEqual(weights, plain.weights, JSON.stringify(spo));
      }
    },
  );

  gpuTest(
    `${loss} inside SPO: a reference run in every step gives the precomputed one's numbers`,
    async (gpu) => {
      for (const isLora of [false, true]) {
        const spo = ACTING[2];
        const precomputed = await run(gpu, spo, { loss, isLora, isOther: true });
        const live = await run(gpu, spo, { loss, isLora, isOther: true, isLive: true });
        assert.deepEqual(Object.keys(live.records[0]), Object.keys(precomputed.records[0]));
        for (const [step, record] of precomputed.records.entries()) {
          const keys = Object.keys(record);
          const numbers = (of: MetricsRecord) => keys.map((key) => Number(of[key]));
          const what = `${isLora ? "adapter" : "all weights"}, step ${step + 1}: ${keys.join()}`;
          assertClose(numbers(live.records[step]), numbers(record), { what, rtol: 1e-4, atol: 1e-4 });
        }
      }
    },
  );
}
