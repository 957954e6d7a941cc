import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { adamw, type AdamwOptions, CLIP_STATE, gradNorm } from "../../engine/ops/adamw.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, type Tensor, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import * as reference from "../reference/adamw.ts";
import * as clip from "../reference/clip.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

const OPTIONS = { learningRate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 };

/** A state that neither clips nor skips. */
const PASS = Float32Array.of(1, 1, 1, 0);

// Lengths are those of parameter blocks, multiples of 64; the decaying part may end anywhere aligned, or be all.
for (const [length, decayElements] of [[64, 0], [64, 64], [320, 128], [4160, 64]]) {
  gpuTest(`adamw of ${length}, ${decayElements} decaying: six steps agree with f64`, async (gpu) => {
    const random = seededRandom(length);
    const draw = () => Float32Array.from(normals(random, { length }));
    const start = draw();
    const gradients = Array.from({ length: 6 }, draw);
    const [weight, moment1, moment2] = [start, new Float32Array(length), new Float32Array(length)]
      .map((values) => fromHost(gpu, values, { shape: [length] }));
    const state = fromHost(gpu, PASS, { shape: [CLIP_STATE.size] });
    let expected: Record<"parameter" | "m" | "v", Float64Array> = {
      parameter: Float64Array.from(start),
      m: new Float64Array(length),
      v: new Float64Array(length),
    };
    gradients.forEach((values, index) => {
      const options = { ...OPTIONS, step: index + 1, decayElements };
      adamw({ weight, moment1, moment2, gradient: upload(gpu, values) }, state, options);
      expected = referenceStep(expected, Float64Array.from(values), options);
    });
    const [foundWeight, foundM, foundV] = await readAll(gpu, [weight, moment1, moment2]);
    assertClose(foundWeight, expected.parameter, { what: "weight" });
    assertClose(foundM, expected.m, { what: "moment1", atol: 1e-6 });
    assertClose(foundV, expected.v, { what: "moment2", atol: 1e-8 });
    for (const tensor of [weight, moment1, moment2, state]) release(tensor);
  });
}

gpuTest("adamw late in a run: bias corrections of step 100,000 are 1", async (gpu) => {
  const options = { ...OPTIONS, step: 100_000, decayElements: 64 };
  const found = await stepOnce(gpu, PASS, options);
  assertClose(found.weight, found.expected.parameter, { what: "weight", atol: 1e-6 });
});

gpuTest("adamw multiplies the gradient by the clip coefficient", async (gpu) => {
  const found = await stepOnce(gpu, Float32Array.of(4, 0.25, 1, 0), {
    ...OPTIONS,
    step: 3,
    decayElements: 0,
  });
  assertClose(found.weight, found.expected.parameter, { what: "weight", atol: 1e-6 });
});

gpuTest("adamw's step is without those that were skipped", async (gpu) => {
  const options = { ...OPTIONS, step: 1007, decayElements: 64 };
  const found = await stepOnce(gpu, Float32Array.of(1, 1, 1, 1005), options);
  assertClose(found.weight, found.expected.parameter, { what: "weight", atol: 1e-6 });
  const beta1 = 0; // whose logarithm is infinite
  const without = await stepOnce(gpu, PASS, { ...OPTIONS, beta1, step: 2, decayElements: 0 });
  assertClose(without.weight, without.expected.parameter, { what: "weight, beta1 0", atol: 1e-6 });
});

gpuTest("adamw changes nothing when a gradient was not finite", async (gpu) => {
  const found = await stepOnce(gpu, Float32Array.of(NaN, 1, 0, 0), {
    ...OPTIONS,
    step: 3,
    decayElements: 64,
  });
  assert.deepEqual([found.weight, found.m, found.v], found.before);
});

/** Numbers that do not change, as a graph's would. */
type StepNumbers = AdamwOptions & { readonly learningRate: number; readonly step: number };

/** One update from random moments under a clip state, with the reference's on the clipped gradient. */
async function stepOnce(gpu: Gpu, stateValues: Float32Array<ArrayBuffer>, options: StepNumbers) {
  const random = seededRandom(options.step);
  const [start, gradient, m, v] = Array.from(
    { length: 4 },
    () => Float32Array.from(normals(random, { length: 64 })),
  );
  const squares = v.map((value) => value * value);
  const before = [start, m, squares];
  const [weight, moment1, moment2, state] = [...before, stateValues]
    .map((values) => fromHost(gpu, values, { shape: [values.length] }));
  adamw({ weight, moment1, moment2, gradient: upload(gpu, gradient) }, state, options);
  const [foundWeight, foundM, foundV] = await readAll(gpu, [weight, moment1, moment2]);
  for (const tensor of [weight, moment1, moment2, state]) release(tensor);
  const expected = referenceStep(
    { parameter: Float64Array.from(start), m: Float64Array.from(m), v: Float64Array.from(squares) },
    Float64Array.from(gradient, (value) => value * stateValues[CLIP_STATE.coefficient]),
    { ...options, step: options.step - stateValues[CLIP_STATE.skipped] },
  );
  return { weight: foundWeight, m: foundM, v: foundV, before, expected };
}

/** The reference has one weight decay for all elements: two updates, the first elements from the decaying one. */
function referenceStep(
  { parameter, m, v }: Record<"parameter" | "m" | "v", Float64Array>,
  gradient: Float64Array,
  { decayElements, ...options }: StepNumbers,
): Record<"parameter" | "m" | "v", Float64Array> {
  const inputs = { parameter, gradient, m, v };
  const decayed = reference.forward(inputs, { ...options, length: gradient.length });
  const kept = reference.forward(inputs, { ...options, length: gradient.length, weightDecay: 0 });
  return {
    ...decayed,
    parameter: kept.parameter.map((value, i) => i < decayElements ? decayed.parameter[i] : value),
  };
}

// Sums of squares: one quad to several per workgroup of the first stage.
for (const lengths of [[4], [64], [64, 257 * 64], [100_000, 4, 1024]]) {
  for (const maxNorm of [0, 1, 1e6]) {
    gpuTest(`grad_norm of ${lengths}, clipped at ${maxNorm}`, async (gpu) => {
      const random = seededRandom(lengths.length);
      const gradients = lengths.map((length) => Float32Array.from(normals(random, { length })));
      const wide = gradients.map((gradient) => Float64Array.from(gradient));
      const { norm, coefficient } = clip.forward({ gradients: wide }, { maxNorm: maxNorm || Infinity });
      const { state, metrics } = await normOf(gpu, gradients, maxNorm);
      assertClose(state.subarray(0, 3), [norm, coefficient, 1], { what: "state", atol: 0, rtol: 1e-6 });
      assertClose(metrics, [-1, norm], { what: "metrics", atol: 0, rtol: 1e-6 });
    }, { layouts: LAYOUTS });
  }
}

for (const bad of [NaN, Infinity, -Infinity]) {
  for (const place of [0, 65, 319]) {
    gpuTest(`grad_norm finds ${bad} at ${place} of 320 and clips nothing`, async (gpu) => {
      const gradient = new Float32Array(320).fill(0.5);
      gradient[place] = bad;
      const { state, metrics } = await normOf(gpu, [new Float32Array(64), gradient], 1);
      assert.equal(state[CLIP_STATE.isFinite], 0);
      assert.equal(state[CLIP_STATE.coefficient], 1);
      assert.ok(!Number.isFinite(metrics[1]));
    }, { layouts: LAYOUTS });
  }
}

async function normOf(gpu: Gpu, gradients: Float32Array<ArrayBuffer>[], maxNorm: number) {
  const tensors = gradients.map((values) => fromHost(gpu, values, { shape: [values.length] }));
  const state: Tensor = fromHost(gpu, new Float32Array(CLIP_STATE.size), { shape: [CLIP_STATE.size] });
  const metrics = fromHost(gpu, Float32Array.of(-1, -1), { shape: [2] });
  gradNorm(tensors, state, { maxNorm, metric: { metrics, index: 1, accumulate: false } });
  const [foundState, foundMetrics] = await readAll(gpu, [state, metrics]);
  for (const tensor of [...tensors, state, metrics]) release(tensor);
  return { state: foundState, metrics: foundMetrics };
}

gpuTest("grad_norm refuses a state of another shape", (gpu) => {
  const metric = { metrics: upload(gpu, new Float32Array(1)), index: 0, accumulate: false };
  assert.throws(
    () => gradNorm([], upload(gpu, new Float32Array(3)), { maxNorm: 1, metric }),
    new ShapeError("Cannot run grad_norm: expected the state of shape [4], found [3]"),
  );
});
