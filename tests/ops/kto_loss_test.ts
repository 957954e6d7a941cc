import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { ktoLoss, type KtoLossInputs } from "../../engine/ops/kto_loss.ts";
import { ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, fromHost, release, type Tensor, upload } from "../../engine/tensor.ts";
import { KTO_METRICS } from "../../shaders/kto_loss.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { gpuTest, readAll } from "../gpu.ts";
import * as reference from "../reference/kto_loss.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose, checkOp } from "./check_op.ts";

const DIMS = { beta: 0.1, desirableWeight: 1.2, undesirableWeight: 0.7 };

function made(N: number, { hasKl, shift = 3 }: { hasKl: boolean; shift?: number }): reference.KtoInputs {
  const random = seededRandom(N);
  const drawn = () => Float64Array.from(normals(random, { length: N }), (x) => Math.fround(8 * x - 30));
  const [s, ref, policy] = [drawn(), drawn(), drawn()];
  const kl = { policy, reference: policy.map((value) => Math.fround(value - shift)) };
  return { s, ref, desirable: Array.from(s, (_, i) => i % 3 !== 1), ...(hasKl ? { kl } : {}) };
}

function inputsOf(
  gpu: Gpu,
  { ref, desirable, kl }: reference.KtoInputs,
  metrics: Tensor,
): KtoLossInputs {
  const vector = (values: ArrayLike<number>) => upload(gpu, Float32Array.from(values));
  return {
    reference: vector(ref),
    desirable: vector(desirable.map(Number)),
    ...(kl ? { kl: { policy: vector(kl.policy), reference: vector(kl.reference) } } : {}),
    ...DIMS,
    batch: { answers: ref.length, chosen: desirable.filter((isGood) => isGood).length },
    metrics,
    ...{ metricsRow: 0, isFirst: true, isLast: true },
  };
}

/** Loss, gradient and metrics of one step; `parts` splits it into micro-batches of one answer each. */
async function run(gpu: Gpu, inputs: reference.KtoInputs, options: { beta?: number; split?: boolean } = {}) {
  const { beta = DIMS.beta, split = false } = options;
  const metrics = empty(gpu, [METRICS_STRIDE], { owner: "caller" });
  const grads: Tensor[] = [];
  const parts = split
    ? Array.from(inputs.s, (_, i) => ({
      s: inputs.s.slice(i, i + 1),
      ref: inputs.ref.slice(i, i + 1),
      desirable: [inputs.desirable[i]],
    }))
    : [inputs];
  const { batch } = inputsOf(gpu, inputs, metrics);
  for (const [index, part] of parts.entries()) {
    const grad = fromHost(gpu, new Float32Array(part.s.length), { shape: [part.s.length] });
    const logps = fromHost(gpu, Float32Array.from(part.s), { shape: [part.s.length] });
    const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
    const tape = new Tape(gpu);
    const loss = ktoLoss({ ...logps, requiresGrad: true, grad }, {
      ...inputsOf(gpu, part, metrics),
      ...{ beta, batch },
      ...{ isFirst: index === 0, isLast: index === parts.length - 1 },
    });
    tape.backward([{ tensor: loss, gradient: one }]);
    [logps, one].forEach(release);
    grads.push(grad);
  }
  const [numbers, ...values] = await readAll(gpu, [metrics, ...grads]);
  [metrics, ...grads].forEach(release);
  return {
    metrics: Object.fromEntries(KTO_METRICS.map((name, index) => [name, numbers[index]])),
    dLogps: values.flatMap((value) => [...value]),
  };
}

for (const hasKl of [true, false]) {
  const name = `kto_loss ${hasKl ? "with" : "without"} KL`;

  gpuTest(name, async (gpu) => {
    // 65: more answers than lanes.
    for (const N of [2, 17, 65]) {
      const inputs = made(N, { hasKl });
      await checkOp(gpu, {
        op: `kto_loss of ${N}`,
        inputs: { logps: { shape: [N], values: inputs.s } },
        run: ({ logps }) => ktoLoss(logps, inputsOf(gpu, inputs, empty(gpu, [METRICS_STRIDE]))),
        reference: ({ logps: s }) => ({
          output: Float64Array.of(reference.forward({ ...inputs, s }, DIMS).loss),
          backward: ([dLoss]) => ({ logps: reference.backward({ ...inputs, s }, DIMS, { dLoss }).dS }),
        }),
      });
    }
  });

  gpuTest(`${name}: every metric`, async (gpu) => {
    for (const shift of [3, -3]) {
      const inputs = made(65, { hasKl, shift });
      const { metrics } = await run(gpu, inputs);
      const expected = reference.forward(inputs, DIMS).metrics;
      assert.deepEqual(Object.keys(expected).sort(), Object.keys(metrics).sort());
      if (shift < 0) assert.equal(expected.kl, 0, "the estimate is not below 0");
      for (const [key, value] of Object.entries(expected)) {
        assertClose([metrics[key]], [value], { what: key });
      }
    }
  });

  gpuTest(`${name}: right at |beta x| = 80, finite and right at 1e4`, async (gpu) => {
    for (const x of [80, -80, 1e4, -1e4]) {
      const zeros = new Float64Array(2);
      const inputs = {
        ...{ s: Float64Array.of(-5 + Math.min(0, x), -5 + Math.min(0, x)), desirable: [true, false] },
        ref: Float64Array.of(-5 - Math.max(0, x), -5 - Math.max(0, x)),
        ...(hasKl ? { kl: { policy: zeros, reference: zeros } } : {}),
      };
      const { metrics, dLogps } = await run(gpu, inputs, { beta: 1 });
      const dims = { ...DIMS, beta: 1 };
      const { loss } = reference.forward(inputs, dims);
      const { dS } = reference.backward(inputs, dims, { dLoss: 1 });
      assertClose([metrics.loss], [loss], { what: `loss at ${x}` });
      assert.ok(Object.values(metrics).every(Number.isFinite));
      // Relative to each alone: WGSL's exp may be off by 3 + 2 |x| steps of 6e-8. Below 1e-37 f32 has no digits.
      dS.forEach((value, i) =>
        assertClose([dLogps[i]], [value], { what: `d at ${x}`, atol: 1e-37, rtol: 2e-5 })
      );
    }
  });
}

gpuTest("kto_loss without KL: micro-batches of a step add up to the whole batch", async (gpu) => {
  const inputs = made(9, { hasKl: false });
  const [whole, parts] = [await run(gpu, inputs), await run(gpu, inputs, { split: true })];
  assertClose(parts.dLogps, whole.dLogps, { what: "d logps" });
  for (const name of KTO_METRICS) assertClose([parts.metrics[name]], [whole.metrics[name]], { what: name });
});

gpuTest("kto_loss: a batch of one label has finite metrics, 0 for the other", async (gpu) => {
  const inputs = made(4, { hasKl: true });
  const { metrics } = await run(gpu, { ...inputs, desirable: [true, true, true, true] });
  assert.ok(Object.values(metrics).every(Number.isFinite));
  assert.deepEqual([metrics["logps/rejected"], metrics["examples/rejected"]], [0, 0]);
});

gpuTest("kto_loss refuses other shapes, one answer, and a KL estimate over micro-batches", (gpu) => {
  const logps = (count: number) => upload(gpu, new Float32Array(count));
  const inputs = inputsOf(gpu, made(2, { hasKl: true }), logps(METRICS_STRIDE));
  assert.throws(() => ktoLoss(logps(3), inputs), ShapeError);
  assert.throws(() => ktoLoss(logps(2), { ...inputs, isLast: false }), /one micro-batch a step/);
  assert.throws(
    () => ktoLoss(logps(1), inputsOf(gpu, made(1, { hasKl: true }), logps(METRICS_STRIDE))),
    /at least two answers/,
  );
});
