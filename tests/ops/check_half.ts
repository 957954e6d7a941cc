/**
 * Checks an op of one input stored as f16 against its f64 reference.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { type Shape, sizeOf } from "../../engine/shape.ts";
import { record, Tape } from "../../engine/tape.ts";
import { byteLength, empty, emptyLike, fromHost, release, type Tensor, toHost } from "../../engine/tensor.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

/** What to check, and how closely. */
export interface HalfCheck {
  /** Names the op in failures. */
  readonly op: string;
  /** Of the input. */
  readonly shape: Shape;
  /** Of the output. */
  readonly outputShape: Shape;
  /** The op on the GPU; its output is f16. */
  readonly run: (x: Tensor) => Tensor;
  /** The op in f64: inputs and gradients are what f16 holds. */
  readonly reference: (x: Float64Array) => {
    readonly output: Float64Array;
    readonly backward: (dOutput: Float64Array) => Float64Array;
  };
  /** |found - expected| <= atol + rtol |expected|. */
  readonly atol: number;
  readonly rtol: number;
}

/**
 * Runs the op forward and backward, into a fresh gradient and into an existing one, both in f16.
 *
 * @param gpu The shared test device.
 * @param check The op, its reference, input shape and tolerances.
 * @throws {assert.AssertionError} Naming the first element that differs.
 */
export async function checkHalf(gpu: Gpu, check: HalfCheck): Promise<void> {
  const random = seededRandom(1);
  const owned: Tensor[] = [];
  const half = async (shape: Shape) => {
    const tensor = fromHost(gpu, Float32Array.from(normals(random, { length: sizeOf(shape) })), {
      shape,
      type: "f16",
    });
    owned.push(tensor);
    return { tensor, values: Float64Array.from(await toHost(tensor)) };
  };
  const x = await half(check.shape);
  const dY = await half(check.outputShape);
  const { output, backward } = check.reference(x.values);
  for (const accumulate of [false, true]) {
    const grad = accumulate ? await half(check.shape) : undefined;
    const fresh = empty(gpu, check.shape, { type: "f16", owner: "caller" });
    owned.push(fresh);
    const tape = new Tape(gpu);
    const source: Tensor = { ...x.tensor, requiresGrad: true, grad: grad?.tensor };
    // Without a gradient of its own, the input is a recorded copy whose backward keeps what it is given.
    const input = accumulate ? source : record(gpu, {
      name: "keep",
      inputs: [source],
      output: copyOf(x.tensor),
      backward: (dX) => gpu.queue.copy({ ...dX.range, sizeBytes: byteLength(fresh) }, fresh.range),
    });
    const y = tape.keep(check.run(input));
    owned.push(y);
    assert.equal(y.type, "f16");
    tape.backward([{ tensor: y, gradient: dY.tensor }]);
    const at = (what: string) => `${check.op}${accumulate ? ", into an existing gradient" : ""}: ${what}`;
    assertClose(await toHost(y), output, { ...check, what: at("output") });
    const expected = backward(dY.values).map((value, i) => value + (grad?.values[i] ?? 0));
    assertClose(await toHost(grad?.tensor ?? fresh), expected, { ...check, what: at("gradient") });
  }
  owned.forEach(release);
}

function copyOf(tensor: Tensor): Tensor {
  const copy = emptyLike(tensor, tensor.shape, { type: tensor.type });
  tensor.gpu.queue.copy({ ...tensor.range, sizeBytes: byteLength(tensor) }, copy.range);
  return copy;
}
