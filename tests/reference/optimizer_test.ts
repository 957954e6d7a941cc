import assert from "node:assert/strict";
import * as adamw from "./adamw.ts";
import * as clip from "./clip.ts";

const SETTINGS = {
  length: 2,
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.99,
  eps: 1e-8,
  weightDecay: 0.5,
  step: 1,
};

Deno.test("adamw: the first step moves by the learning rate against the gradient's sign, after the decay", () => {
  const inputs = {
    parameter: Float64Array.of(2, -1),
    gradient: Float64Array.of(3, -1e-3),
    m: new Float64Array(2),
    v: new Float64Array(2),
  };
  const { parameter, m, v } = adamw.forward(inputs, SETTINGS);
  assert.ok(Math.abs(parameter[0] - (2 * 0.95 - 0.1)) < 1e-9, `found ${parameter[0]}`);
  assert.ok(Math.abs(parameter[1] - (-1 * 0.95 + 0.1)) < 1e-5, `found ${parameter[1]}`);
  assert.ok(Math.abs(m[0] - 0.3) < 1e-15);
  assert.ok(Math.abs(v[0] - 0.09) < 1e-15);
  assert.deepEqual(inputs.parameter, Float64Array.of(2, -1));
});

Deno.test("adamw: a zero gradient leaves only the decay", () => {
  const zero = new Float64Array(2);
  const inputs = { parameter: Float64Array.of(2, -1), gradient: zero, m: zero, v: zero };
  assert.deepEqual(adamw.forward(inputs, SETTINGS).parameter, Float64Array.of(1.9, -0.95));
});

Deno.test("clip: one norm over all gradients; small ones stay bit for bit", () => {
  const gradients = [Float64Array.of(3), Float64Array.of(0, 4)];
  const clipped = clip.forward({ gradients }, { maxNorm: 1 });
  assert.equal(clipped.norm, 5);
  assert.equal(clipped.coefficient, 1 / (5 + 1e-6));
  assert.deepEqual(clipped.gradients, [Float64Array.of(3 / (5 + 1e-6)), Float64Array.of(0, 4 / (5 + 1e-6))]);
  const kept = clip.forward({ gradients }, { maxNorm: 6 });
  assert.equal(kept.coefficient, 1);
  assert.deepEqual(kept.gradients, gradients);
});
