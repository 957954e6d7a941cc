import assert from "node:assert/strict";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as reference from "../reference/pair_loss.ts";
import { normals, seededRandom } from "../reference/random.ts";

/** Options as a user gives them, and the same loss in f64 with defaults written out. */
const CASES: [PairLossKey, Record<string, unknown>, reference.PairLossKind][] = [
  ["dpo", {}, { loss: "dpo", beta: 0.1, labelSmoothing: 0 }],
  ["dpo", { beta: 0.7, labelSmoothing: 0.2 }, { loss: "dpo", beta: 0.7, labelSmoothing: 0.2 }],
  ["hinge", {}, { loss: "hinge", beta: 0.1 }],
  ["hinge", { beta: 0.7 }, { loss: "hinge", beta: 0.7 }],
  ["ipo", {}, { loss: "ipo", beta: 0.1, lengthNormalize: true }],
  ["ipo", { beta: 0.7, lengthNormalize: false }, { loss: "ipo", beta: 0.7, lengthNormalize: false }],
  ["simpo", {}, { loss: "simpo", beta: 2, gammaBetaRatio: 0.5 }],
  ["simpo", { beta: 5, gammaBetaRatio: 0.3 }, { loss: "simpo", beta: 5, gammaBetaRatio: 0.3 }],
];

const P = 5;

gpuTest(
  "every loss, with its defaults and with other options, is the f64 loss of those options",
  async (gpu) => {
    const random = seededRandom(6);
    const draw = () => Float32Array.from(normals(random, { length: 2 * P, scale: 3 }), (value) => value - 12);
    const [s, ref] = [draw(), draw()];
    const lengths = Float32Array.from({ length: 2 * P }, (_, i) => 2 + i);
    const inputs = { s: Float64Array.from(s), ref: Float64Array.from(ref), lengths };
    const tensor = (values: Float32Array<ArrayBuffer>) => fromHost(gpu, values, { shape: [values.length] });
    const shared = {
      ...{
        reference: tensor(ref),
        lengths: tensor(lengths),
        metrics: tensor(new Float32Array(METRICS_STRIDE)),
      },
      state: spoState(gpu, { lambda: 0 }),
    };
    const logps = tensor(s);
    for (const [name, given, kind] of CASES) {
      // Its gradient, which it makes at once, goes with the scope.
      const loss = scope(gpu, () =>
        pairLoss(logps, {
          ...shared,
          metricsRow: 0,
          pairLoss: PAIR_LOSSES[name].resolve(given).head,
          spo: NO_PENALTY,
          microBatch: { pairsInBatch: P, isFirst: true, isLast: true },
        }));
      const expected = reference.forward(inputs, { ...kind, P, normalizer: P }).loss;
      assertClose(await toHost(loss), [expected], { what: `${name} ${JSON.stringify(given)}` });
      release(loss);
    }
    [logps, ...Object.values(shared)].forEach(release);
  },
);

Deno.test("the first loss that a run must show is the f64 loss at policy = reference", () => {
  for (const [name, given, kind] of CASES) {
    const { initialLoss } = PAIR_LOSSES[name].resolve(given);
    if (name === "simpo") {
      assert.equal(initialLoss, undefined, "SimPO's depends on the data");
      continue;
    }
    const side = (s: number, n: number) => ({ s, ref: s, n });
    const { loss } = reference.pairHead({ chosen: side(-7, 3), rejected: side(-2, 8) }, kind);
    assert.ok(Math.abs(initialLoss! - loss) < 1e-12 * (1 + loss), `${name}: ${initialLoss}, ${loss}`);
  }
});

Deno.test("every registered loss is filed under its own name and has a case here", () => {
  for (const [key, { name }] of Object.entries(PAIR_LOSSES)) assert.equal(name, key);
  assert.deepEqual([...new Set(CASES.map(([name]) => name))], Object.keys(PAIR_LOSSES));
  const readers = Object.values(PAIR_LOSSES).filter((loss) => loss.resolve({}).needsReference);
  assert.deepEqual(readers.map(({ name }) => name), ["dpo", "hinge", "ipo"]);
});

Deno.test("a loss refuses options of another loss and values out of range", () => {
  const refused: [PairLossKey, Record<string, unknown>, RegExp][] = [
    ["hinge", { labelSmoothing: 0.1 }, /labelSmoothing/],
    ["simpo", { beta: -1 }, /beta/],
    ["dpo", { labelSmoothing: 0.5 }, /labelSmoothing/],
    ["ipo", { lengthNormalize: 1 }, /lengthNormalize/],
  ];
  for (const [name, given, message] of refused) {
    assert.throws(() => PAIR_LOSSES[name].resolve(given), message);
  }
});
