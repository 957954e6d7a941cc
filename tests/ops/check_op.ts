/**
 * Checks a GPU op against its f64 reference: forward, and the gradient of every input.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { narrow, widen } from "../../engine/dtype.ts";
import { add } from "../../engine/ops/add.ts";
import { type Shape, sizeOf } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, release, type Tensor, writeHost } from "../../engine/tensor.ts";
import { readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";

/** A differentiable input of an op. */
export interface OpInput {
  readonly shape: Shape;
  /** Its values; by default standard normal numbers times `scale`. */
  readonly values?: ArrayLike<number>;
  /** Standard deviation of drawn values, 1 by default. */
  readonly scale?: number;
  /** Rows of each row shard, for ops that take a list of them; by default one shard. */
  readonly shards?: readonly number[];
  /** Rows to reserve, as a run does whose batches differ in tokens. */
  readonly capacity?: number;
  /** How it is stored, f32 by default; its values are rounded to that first. Gradients of leaves always are f32. */
  readonly type?: "f32" | "f16";
}

/** The op in f64. */
export interface OpReference {
  readonly output: Float64Array;
  /** Gradients by the inputs' names. */
  readonly backward: (dOutput: Float64Array) => Record<string, Float64Array>;
}

/** What to check, and how closely. */
export interface OpCheck {
  /** Names the op and the case in failures. */
  readonly op: string;
  readonly seed?: number;
  readonly inputs: Readonly<Record<string, OpInput>>;
  /** The op on the GPU. `tensors` holds each input's first shard, `shards` all of them. */
  readonly run: (tensors: Record<string, Tensor>, shards: Record<string, readonly Tensor[]>) => Tensor;
  readonly reference: (inputs: Record<string, Float64Array>) => OpReference;
  /** How the op stores its output, f32 by default. */
  readonly outputType?: "f32" | "f16";
  /** |found - expected| <= atol + rtol |expected|; 1e-5 each by default. Say why where it is more. */
  readonly atol?: number;
  readonly rtol?: number;
}

type Values = Record<string, Float32Array<ArrayBuffer>>;

/** How one run of the op is set up. */
interface Mode {
  readonly name: string;
  /** Whether the op's inputs have a gradient already, so that its backward must add to it. */
  readonly accumulate: boolean;
  /** An input that wants no gradient. */
  readonly frozen?: string;
}

/**
 * Runs the op mid-graph: its inputs are results of `add`, its output gets a random gradient. The backward must write
 * every element where an input has no gradient yet (buffers are poisoned), add where it has one, leave the gradients
 * it was given as they are, do without the gradient of any one input, and give the same bits when run again.
 *
 * @param gpu The shared test device.
 * @param check The op, its reference, inputs and tolerances.
 * @throws {assert.AssertionError} Naming the first element that differs.
 */
export async function checkOp(gpu: Gpu, check: OpCheck): Promise<void> {
  const names = Object.keys(check.inputs);
  const random = seededRandom(check.seed ?? 1);
  const draw = (length: number, scale = 1) => Float32Array.from(normals(random, { length, scale }));
  const inputs = mapInputs(
    check,
    ({ values, shape, scale, type }) =>
      rounded(values ? Float32Array.from(values) : draw(sizeOf(shape), scale), type),
  );
  const seeds = mapInputs(check, ({ shape, type }) => rounded(draw(sizeOf(shape)), type));
  const expected = check.reference(toDouble(inputs));
  const upstream = rounded(draw(expected.output.length), check.outputType);
  const gradients = expected.backward(Float64Array.from(upstream));
  const modes: Mode[] = [
    { name: "into fresh gradients", accumulate: false },
    { name: "into existing gradients", accumulate: true },
    { name: "again", accumulate: true },
    ...(names.length > 1
      ? names.map((frozen) => ({ name: `${frozen} frozen`, accumulate: false, frozen }))
      : []),
  ];
  const results: Values[] = [];
  for (const mode of modes) {
    const found = await runMode(gpu, check, { mode, inputs, seeds, upstream });
    const at = (what: string) => `${check.op}, ${mode.name}: ${what}`;
    assertClose(found.output, expected.output, { ...check, what: at("output") });
    assert.deepEqual(found.upstream, upstream, at("the gradient that was given is changed"));
    for (const name of names.filter((name) => name !== mode.frozen)) {
      const wanted = mode.accumulate
        ? gradients[name].map((value, i) => value + seeds[name][i])
        : gradients[name];
      assertClose(found[`d ${name}`], wanted, { ...check, what: at(`d ${name}`) });
      if (mode.accumulate) {
        assert.deepEqual(found[`seed ${name}`], seeds[name], at(`${name}'s first gradient is changed`));
      }
    }
    results.push(found);
  }
  for (const name of Object.keys(results[1])) {
    assert.deepEqual(
      bits(results[2][name]),
      bits(results[1][name]),
      `${check.op}: ${name} differs when run again`,
    );
  }
}

/**
 * Asserts |found - expected| <= atol + rtol |expected| for every element, so that NaN fails.
 *
 * @param found Values from the GPU.
 * @param expected Values from the reference, as many.
 * @param options.what Names the values.
 * @param options.atol Absolute part, 1e-5 by default.
 * @param options.rtol Relative part, 1e-5 by default.
 */
export function assertClose(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  options: { what: string; atol?: number; rtol?: number },
): void {
  const { what, atol = 1e-5, rtol = 1e-5 } = options;
  assert.equal(found.length, expected.length, `${what}: number of elements`);
  for (let i = 0; i < expected.length; i++) {
    const isWithin = Math.abs(found[i] - expected[i]) <= atol + rtol * Math.abs(expected[i]);
    // A message for each of millions of elements would be most of what a test of products costs.
    if (!isWithin) assert.fail(`${what}[${i}] is ${found[i]}, expected ${expected[i]}`);
  }
}

async function runMode(
  gpu: Gpu,
  check: OpCheck,
  { mode, inputs, seeds, upstream }: {
    mode: Mode;
    inputs: Values;
    seeds: Values;
    upstream: Float32Array<ArrayBuffer>;
  },
): Promise<Values> {
  const owned: Tensor[] = [];
  const place: Place = (values, { shape, capacity, type }) => {
    const tensor = empty(gpu, shape, { capacity, type, owner: "caller" });
    writeHost(tensor, values);
    owned.push(tensor);
    return tensor;
  };
  const leaves = mapInputs(check, (input, name) => cut(input, inputs[name], mode.frozen === name, place));
  const given = mapInputs(check, (input, name) => cut(input, seeds[name], true, place));
  const zeros = mapInputs(check, (input) => cut(input, new Float32Array(sizeOf(input.shape)), true, place));
  const tape = new Tape(gpu);
  const shards = mapInputs(check, (_, name) => leaves[name].map((leaf, i) => add(leaf, zeros[name][i])));
  const output = tape.keep(check.run(mapInputs(check, (_, name) => shards[name][0]), shards));
  owned.push(output);
  assert.equal(output.type, check.outputType ?? "f32", `${check.op}: the output's type`);
  const gradient = place(upstream, { shape: output.shape, type: check.outputType });
  const first = mode.accumulate
    ? Object.keys(shards).flatMap((name) =>
      shards[name].map((tensor, i) => ({ tensor, gradient: given[name][i] }))
    )
    : [];
  tape.backward([{ tensor: output, gradient }, ...first]);
  const wanted: [string, readonly Tensor[]][] = [["output", [output]], ["upstream", [gradient]]];
  for (const name of Object.keys(leaves)) {
    if (name === mode.frozen) continue;
    wanted.push([`d ${name}`, leaves[name].map((leaf) => leaf.grad!)], [`seed ${name}`, given[name]]);
  }
  const parts = await readAll(gpu, wanted.flatMap(([, tensors]) => tensors));
  owned.forEach(release);
  return Object.fromEntries(
    wanted.map(([name, tensors]) => [name, join(parts.splice(0, tensors.length))]),
  );
}

/** Puts values on the device. */
type Place = (
  values: Float32Array<ArrayBuffer>,
  options: { shape: Shape; capacity?: number; type?: "f32" | "f16" },
) => Tensor;

/** Cuts an input into its row shards; each is a leaf with a gradient of zeros, unless it is frozen. */
function cut(
  { shape, shards, capacity, type }: OpInput,
  values: Float32Array<ArrayBuffer>,
  isFrozen: boolean,
  place: Place,
): Tensor[] {
  const rowSize = sizeOf(shape.slice(1));
  let first = 0;
  return (shards ?? [shape[0]]).map((rows) => {
    const part = values.subarray(first * rowSize, (first + rows) * rowSize);
    first += rows;
    const options = { shape: [rows, ...shape.slice(1)], capacity };
    const tensor = place(part, { ...options, type });
    return isFrozen
      ? tensor
      : { ...tensor, requiresGrad: true, grad: place(new Float32Array(part.length), options) };
  });
}

function mapInputs<Result>(
  { inputs }: OpCheck,
  make: (input: OpInput, name: string) => Result,
): Record<string, Result> {
  return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, make(input, name)]));
}

/** Values as they are stored. */
function rounded(
  values: Float32Array<ArrayBuffer>,
  type: "f32" | "f16" = "f32",
): Float32Array<ArrayBuffer> {
  return widen(narrow(values, type), type) as Float32Array<ArrayBuffer>;
}

function toDouble(values: Values): Record<string, Float64Array> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Float64Array.from(value)]));
}

function join(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const joined = new Float32Array(parts.reduce((total, { length }) => total + length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

function bits(values: Float32Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}
