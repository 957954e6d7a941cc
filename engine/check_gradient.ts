/**
 * Whether an op computes what it should: its values and the gradient of each input, against the same in f64 and central
 * differences of that.
 * @module
 */
import { add } from "./ops/add.ts";
import type { Gpu } from "./gpu.ts";
import { expectShape, type Shape, sizeOf } from "./shape.ts";
import { Tape } from "./tape.ts";
import { fromHost, release, type Tensor, toHost } from "./tensor.ts";

/** A differentiable input of the op. */
export interface GradientInput {
  /** Extents, outermost first. */
  readonly shape: Shape;
  /** As many as the shape says; keep them away from where the op has no derivative. */
  readonly values: Float32Array<ArrayBuffer>;
}

/** What to check, and how closely. */
export interface GradientCheck<Name extends string> {
  /** The inputs that gradients are wanted of; `run` brings whatever else it needs. */
  readonly inputs: Readonly<Record<Name, GradientInput>>;
  /** The op on the GPU. */
  readonly run: (inputs: Record<Name, Tensor>) => Tensor;
  /** The same in f64: as slow and as plain as it likes. */
  readonly reference: (inputs: Record<Name, Float64Array>) => ArrayLike<number>;
  /** Largest error allowed, 1e-4 by default. */
  readonly tolerance?: number;
}

/** Errors found: the largest difference of any element, as a share of the largest that is expected of one. */
export interface GradientReport<Name extends string> {
  /** Of the op's values. */
  readonly output: number;
  /** Of each input's gradient. */
  readonly gradients: Readonly<Record<Name, number>>;
}

/**
 * An op whose values or gradients are not those of its reference.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { add, openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const wrong = checkGradient(gpu, {
 *   inputs: { x: { shape: [2], values: Float32Array.of(1, -2) } },
 *   run: ({ x }) => add(x, x),
 *   reference: ({ x }) => x.map((value) => 3 * value),
 * });
 * await assert.rejects(wrong, GradientError);
 * ```
 */
export class GradientError extends Error {
  /** The class, as messages print it. */
  override name = "GradientError";
}

/** Half the distance of the two evaluations: the difference's own error is about 1e-10 then. */
const HALF_STEP = 1e-5;

/**
 * Checks an op's forward and backward. The upstream gradient of element i is cos(i), so that no two elements are alike.
 * The backward runs where the inputs have no gradient yet and it must write, where they have one that it must add to, and
 * where one of several inputs wants none. Open the device with `poison` to have elements show that nobody wrote.
 *
 * @param gpu the device, on which no tape records
 * @param check the op, its inputs, its reference
 * @returns the largest errors
 * @throws {GradientError} naming the first element past the tolerance
 * @throws {ShapeError} when values do not fit their shape, or the reference's do not fit the output
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { activation, openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu({ poison: true });
 * const { gradients } = await checkGradient(gpu, {
 *   inputs: { x: { shape: [3], values: Float32Array.of(-1, 0.5, 2) } },
 *   run: ({ x }) => activation(x, { kind: "silu" }),
 *   reference: ({ x }) => x.map((value) => value / (1 + Math.exp(-value))),
 * });
 * assert(gradients.x < 1e-5);
 * ```
 */
export async function checkGradient<Name extends string>(
  gpu: Gpu,
  check: GradientCheck<Name>,
): Promise<GradientReport<Name>> {
  const { reference, tolerance = 1e-4 } = check;
  const values = mapInputs(check, ({ values }) => Float64Array.from(values));
  const expected = Array.from(reference(values));
  const names = Object.keys(check.inputs) as Name[];
  const slopes = mapInputs(check, (_, name) => centralDifferences(reference, values, name));
  const errors = { output: 0, gradients: mapInputs(check, () => 0) };
  for (const mode of modesOf(names)) {
    const found = await runBackward(gpu, check, { mode, length: expected.length });
    const accept = (what: string, parts: { found: Float32Array; expected: ArrayLike<number> }) =>
      largestError(`${what}, ${mode.description}`, { ...parts, tolerance });
    errors.output = Math.max(errors.output, accept("output", { found: found.output, expected }));
    for (const name of names.filter((name) => name !== mode.frozen)) {
      const parts = {
        found: found.gradients[name],
        expected: slopes[name].map((slope) => slope + mode.start),
      };
      errors.gradients[name] = Math.max(errors.gradients[name], accept(`gradient of ${name}`, parts));
    }
  }
  return errors;
}

/** One way of running the op. */
interface Mode {
  readonly description: string;
  /** What the gradients of the inputs are before the backward; 0 stands for none. */
  readonly start: 0 | 1;
  /** An input that wants no gradient. */
  readonly frozen?: string;
}

function modesOf(names: readonly string[]): Mode[] {
  const frozen = names.length > 1 ? names : [];
  return [
    { description: "written", start: 0 },
    { description: "added to one that is there", start: 1 },
    ...frozen.map((name): Mode => ({ description: `with ${name} frozen`, start: 0, frozen: name })),
  ];
}

async function runBackward<Name extends string>(
  gpu: Gpu,
  check: GradientCheck<Name>,
  { mode, length }: { mode: Mode; length: number },
): Promise<{ output: Float32Array; gradients: Record<Name, Float32Array> }> {
  const owned: Tensor[] = [];
  const place = (values: Float32Array<ArrayBuffer>, shape: Shape): Tensor => {
    const tensor = fromHost(gpu, values, { shape });
    owned.push(tensor);
    return tensor;
  };
  const filled = (shape: Shape, value: number) => place(new Float32Array(sizeOf(shape)).fill(value), shape);
  try {
    const leaves = mapInputs(check, ({ shape, values }, name): Tensor => {
      const leaf = place(values, shape);
      return name === mode.frozen ? leaf : { ...leaf, requiresGrad: true, grad: filled(shape, mode.start) };
    });
    const zeros = mapInputs(check, ({ shape }) => filled(shape, 0));
    const upstream = place(Float32Array.from({ length }, (_, i) => Math.cos(i)), [length]);
    using tape = new Tape(gpu);
    // A leaf has a gradient that the backward adds to, what was computed of it has none yet.
    const inputs = mapInputs(check, (_, name) => mode.start ? leaves[name] : add(leaves[name], zeros[name]));
    const output = tape.keep(check.run(inputs));
    owned.push(output);
    expectShape("checkGradient", "the output, flat,", [sizeOf(output.shape)], [length]);
    tape.backward([{ tensor: output, gradient: { ...upstream, shape: output.shape } }]);
    const gradients = {} as Record<Name, Float32Array>;
    for (const [name, { grad }] of Object.entries<Tensor>(leaves)) {
      if (grad) gradients[name as Name] = await toHost(grad);
    }
    return { output: await toHost(output), gradients };
  } finally {
    owned.forEach(release);
  }
}

/** Of sum over i of cos(i) output[i], by each element of an input. */
function centralDifferences<Name extends string>(
  reference: GradientCheck<Name>["reference"],
  inputs: Record<Name, Float64Array>,
  name: Name,
): Float64Array {
  const objective = () =>
    Array.from(reference(inputs)).reduce((total, value, i) => total + Math.cos(i) * value, 0);
  const input = inputs[name];
  return input.map((kept, i) => {
    input[i] = kept + HALF_STEP;
    const above = objective();
    input[i] = kept - HALF_STEP;
    const below = objective();
    input[i] = kept;
    return (above - below) / (2 * HALF_STEP);
  });
}

/** @throws {GradientError} naming the first element past the tolerance */
function largestError(
  what: string,
  { found, expected, tolerance }: { found: Float32Array; expected: ArrayLike<number>; tolerance: number },
): number {
  const scale = Math.max(...Array.from(expected, Math.abs)) || 1;
  return found.reduce((largest, value, i) => {
    const error = Math.abs(value - expected[i]) / scale;
    if (error <= tolerance) return Math.max(largest, error);
    throw new GradientError(`Cannot trust the ${what}: expected ${expected[i]} at [${i}], found ${value}`);
  }, 0);
}

function mapInputs<Name extends string, Result>(
  { inputs }: GradientCheck<Name>,
  make: (input: GradientInput, name: Name) => Result,
): Record<Name, Result> {
  const entries = Object.entries<GradientInput>(inputs);
  return Object.fromEntries(entries.map(([name, input]) => [name, make(input, name as Name)])) as Record<
    Name,
    Result
  >;
}
