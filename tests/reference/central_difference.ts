/**
 * Checks an op's backward against central differences of its own forward.
 *
 * Names tie the two together: an output `y` has the upstream gradient `dY`, an input `x` the gradient `dX`.
 *
 * @module
 */
import assert from "node:assert/strict";
import { normals, type Random, seededRandom } from "./random.ts";

/** A reference op: forward, and backward that turns the outputs' gradients into the inputs' gradients. */
export interface DifferentiableOp<Inputs, Dims, Upstream> {
  /** Inputs and dimensions to outputs. */
  forward: (inputs: Inputs, dims: Dims) => object;
  /** Inputs, dimensions and upstream gradients to the inputs' gradients. */
  backward: (inputs: Inputs, dims: Dims, upstream: Upstream) => object;
}

/** What to check, and how closely. */
export interface BackwardCheck<Inputs, Dims> {
  /** Tensors of the op; those with a gradient are Float64Array. */
  inputs: Inputs;
  /** Dimensions and settings of the op. */
  dims: Dims;
  /** Outputs that receive an upstream gradient. */
  outputs: string[];
  /** Seed of the upstream gradient. */
  seed: number;
  /** Half the distance of the two evaluations, 1e-5 by default. */
  h?: number;
  /** Largest relative error, 1e-6 by default. */
  tolerance?: number;
}

type Values = Record<string, Float64Array | number>;

/** Below this size an error counts as absolute: rounding of the forward leaves about 1e-10 in a difference. */
const ERROR_FLOOR = 1e-3;

/**
 * Asserts that every gradient the backward returns equals the central difference of sum(upstream * output).
 *
 * @param op Forward and backward, for instance a module namespace.
 * @param check Inputs, dimensions, outputs and seed.
 * @throws {assert.AssertionError} Naming the first element that differs.
 *
 * @example
 * ```ts
 * const square = {
 *   forward: ({ x }: { x: Float64Array }) => ({ y: x.map((value) => value * value) }),
 *   backward: ({ x }: { x: Float64Array }, _: object, { dY }: { dY: Float64Array }) => ({
 *     dX: x.map((value, i) => 2 * value * dY[i]),
 *   }),
 * };
 * assertBackward(square, { inputs: { x: Float64Array.of(1, -2) }, dims: {}, outputs: ["y"], seed: 1 });
 * ```
 */
export function assertBackward<Inputs extends object, Dims, Upstream>(
  op: DifferentiableOp<Inputs, Dims, Upstream>,
  check: BackwardCheck<Inputs, Dims>,
): void {
  const { inputs, dims, outputs, seed, h = 1e-5, tolerance = 1e-6 } = check;
  const upstream = randomUpstream(op.forward(inputs, dims) as Values, outputs, seededRandom(seed));
  const gradients = op.backward(inputs, dims, upstream as Upstream) as Record<string, Float64Array>;
  assert.ok(Object.keys(gradients).length > 0, "expected at least one gradient");
  const objective = () => dot(op.forward(inputs, dims) as Values, outputs, upstream);
  for (const [gradientName, gradient] of Object.entries(gradients)) {
    const input = (inputs as Record<string, Float64Array>)[inputName(gradientName)];
    assert.equal(gradient.length, input.length, `${gradientName} has the length of its input`);
    for (let i = 0; i < input.length; i++) {
      const expected = centralDifference(objective, { input, index: i, h });
      const size = Math.max(ERROR_FLOOR, Math.abs(expected), Math.abs(gradient[i]));
      const error = Math.abs(gradient[i] - expected) / size;
      // Written so that NaN fails.
      assert.ok(error < tolerance, `${gradientName}[${i}] is ${gradient[i]}, central difference ${expected}`);
    }
  }
}

/**
 * The central difference of a scalar function with respect to one element, which is restored afterwards.
 *
 * @param objective Reads `input` and returns a number.
 * @param options.input Array that the objective reads.
 * @param options.index Element to move.
 * @param options.h Half the distance of the two evaluations, 1e-5 by default.
 * @returns (f(x + h) - f(x - h)) / 2h.
 */
export function centralDifference(
  objective: () => number,
  options: { input: Float64Array; index: number; h?: number },
): number {
  const { input, index, h = 1e-5 } = options;
  const kept = input[index];
  input[index] = kept + h;
  const above = objective();
  input[index] = kept - h;
  const below = objective();
  input[index] = kept;
  return (above - below) / (2 * h);
}

function randomUpstream(values: Values, outputs: string[], random: Random): Values {
  return Object.fromEntries(outputs.map((name) => {
    const output = values[name];
    const drawn = normals(random, { length: typeof output === "number" ? 1 : output.length });
    return [gradientNameOf(name), typeof output === "number" ? drawn[0] : drawn];
  }));
}

function dot(values: Values, outputs: string[], upstream: Values): number {
  let sum = 0;
  for (const name of outputs) {
    const output = values[name];
    const weight = upstream[gradientNameOf(name)];
    if (typeof output === "number") sum += output * (weight as number);
    else output.forEach((value, i) => sum += value * (weight as Float64Array)[i]);
  }
  return sum;
}

function gradientNameOf(name: string): string {
  return `d${name[0].toUpperCase()}${name.slice(1)}`;
}

function inputName(gradientName: string): string {
  return `${gradientName[1].toLowerCase()}${gradientName.slice(2)}`;
}
