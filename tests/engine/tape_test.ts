import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { add } from "../../engine/ops/add.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { activation } from "../../engine/ops/activation.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { swiglu } from "../../engine/ops/swiglu.ts";
import { ShapeError } from "../../engine/shape.ts";
import { noGrad, record, Tape } from "../../engine/tape.ts";
import { emptyLike, fromHost, release, type Tensor, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";

const silu = (x: Tensor) => activation(x, { kind: "silu" });

/** Tensors of one test, released at its end. */
class Made {
  readonly #tensors: Tensor[] = [];

  constructor(private readonly gpu: Gpu) {}

  constant(...values: number[]): Tensor {
    const tensor = fromHost(this.gpu, Float32Array.from(values), { shape: [values.length] });
    this.#tensors.push(tensor);
    return tensor;
  }

  /** A leaf with a gradient of zeros. */
  leaf(...values: number[]): Tensor & { grad: Tensor } {
    const grad = this.constant(...values.map(() => 0));
    return { ...this.constant(...values), requiresGrad: true, grad };
  }

  rowOf(...values: number[]): Tensor {
    return { ...this.constant(...values), shape: [1, values.length] };
  }

  /** A leaf of one row. */
  row(...values: number[]): Tensor & { grad: Tensor } {
    const grad = this.rowOf(...values.map(() => 0));
    return { ...this.rowOf(...values), requiresGrad: true, grad };
  }

  /** Rotations of heads of two elements. */
  table(positions: number): Tensor {
    const table = ropeTable(this.gpu, { positions, headDim: 2, theta: 10 });
    this.#tensors.push(table);
    return table;
  }

  [Symbol.dispose](): void {
    this.#tensors.forEach(release);
  }
}

/** silu'(x), for gradients by hand. */
function siluSlope(x: number): number {
  const s = 1 / (1 + Math.exp(-x));
  return s * (1 + x * (1 - s));
}

function assertNear(found: ArrayLike<number>, expected: readonly number[]): void {
  assert.equal(found.length, expected.length);
  expected.forEach((value, i) =>
    assert.ok(Math.abs(found[i] - value) < 1e-5, `[${i}] is ${found[i]}, not ${value}`)
  );
}

gpuTest("two readers of one tensor: their gradients add up, in either order", async (gpu) => {
  using made = new Made(gpu);
  const [a, b, one] = [made.leaf(0.5), made.leaf(0.5), made.constant(1)];
  for (
    const [x, run] of [[a, (h: Tensor) => add(silu(h), h)], [b, (h: Tensor) => add(h, silu(h))]] as const
  ) {
    const tape = new Tape(gpu);
    const hidden = silu(x);
    tape.backward([{ tensor: run(hidden), gradient: one }]);
  }
  const hidden = 0.5 / (1 + Math.exp(-0.5));
  const expected = (siluSlope(hidden) + 1) * siluSlope(0.5);
  const [dA, dB] = await readAll(gpu, [a.grad, b.grad]);
  assertNear(dA, [expected]);
  assertNear(dB, [expected]);
});

gpuTest("a gradient that two tensors share is copied before one of them adds to it", async (gpu) => {
  using made = new Made(gpu);
  const [a, b, one] = [made.leaf(0.5), made.leaf(-2), made.constant(1)];
  const tape = new Tape(gpu);
  const [left, right] = [silu(a), silu(b)];
  const extra = silu(left);
  // Both receive the sum's gradient as it is; then left's other reader adds to its part only.
  const sum = add(left, right);
  tape.backward([{ tensor: add(sum, extra), gradient: one }]);
  const value = 0.5 / (1 + Math.exp(-0.5));
  const [dA, dB, given] = await readAll(gpu, [a.grad, b.grad, one]);
  assertNear(dA, [(1 + siluSlope(value)) * siluSlope(0.5)]);
  assertNear(dB, [siluSlope(-2)]);
  assertNear(given, [1]);
});

gpuTest("add(x, x) and ops before and after it", async (gpu) => {
  using made = new Made(gpu);
  const [x, one] = [made.leaf(0.3, -0.7), made.constant(1, 1)];
  const tape = new Tape(gpu);
  const hidden = silu(x);
  const twice = add(hidden, hidden);
  tape.backward([{ tensor: add(add(twice, twice), hidden), gradient: one }]);
  const [dX, given] = await readAll(gpu, [x.grad, one]);
  assertNear(dX, [5 * siluSlope(0.3), 5 * siluSlope(-0.7)]);
  assertNear(given, [1, 1]);
});

gpuTest("gradients of a leaf accumulate over tapes, and a leaf read twice gets both", async (gpu) => {
  using made = new Made(gpu);
  const [x, one] = [made.leaf(2, 3), made.constant(1, 10)];
  for (let turn = 0; turn < 3; turn++) {
    const tape = new Tape(gpu);
    tape.backward([{ tensor: add(x, x), gradient: one }]);
  }
  assertNear(await toHost(x.grad), [6, 60]);
});

gpuTest("several seeds, one of them given twice, add up", async (gpu) => {
  using made = new Made(gpu);
  const [x, one, ten] = [made.leaf(1, -1), made.constant(1, 1), made.constant(10, 20)];
  const tape = new Tape(gpu);
  const hidden = add(x, one);
  const output = add(hidden, one);
  tape.backward([
    { tensor: output, gradient: one },
    { tensor: hidden, gradient: ten },
    { tensor: output, gradient: ten },
  ]);
  const [dX, given] = await readAll(gpu, [x.grad, ten]);
  assertNear(dX, [21, 41]);
  assertNear(given, [10, 20]);
});

gpuTest(
  "what noGrad and frozen inputs compute is right, recorded nowhere, and gets no gradient",
  async (gpu) => {
    using made = new Made(gpu);
    const [x, frozen, one] = [made.row(2), made.rowOf(3), made.rowOf(1)];
    const tape = new Tape(gpu);
    const constant = noGrad(gpu, () => silu(x));
    assert.equal(constant.requiresGrad, false);
    assert.equal(gpu.tape, tape);
    const fromFrozen = silu(frozen);
    assert.equal(fromFrozen.requiresGrad, false);
    const output = tape.keep(matmul(add(constant, fromFrozen), x));
    assert.equal(output.requiresGrad, true);
    tape.backward([{ tensor: output, gradient: one }]);
    const [dX, y] = await readAll(gpu, [x.grad, output]);
    const siluOf = (value: number) => value / (1 + Math.exp(-value));
    const factor = siluOf(2) + siluOf(3);
    // Only x as the right operand counts: through the left one it was read without gradient.
    assertNear(dX, [factor]);
    assertNear(y, [factor * 2]);
    release(output);
  },
);

gpuTest("noGrad goes on recording after a body that throws", (gpu) => {
  using tape = new Tape(gpu);
  assert.throws(() =>
    noGrad(gpu, () => {
      throw new RangeError("inside");
    }), /inside/);
  assert.equal(gpu.tape, tape);
});

gpuTest("a branch that no seed reaches gets no gradient and is no error", async (gpu) => {
  using made = new Made(gpu);
  const [x, unused, one] = [made.leaf(2), made.leaf(3), made.constant(1)];
  const tape = new Tape(gpu);
  silu(unused);
  tape.backward([{ tensor: add(x, one), gradient: one }]);
  const [dX, dUnused] = await readAll(gpu, [x.grad, unused.grad]);
  assertNear(dX, [1]);
  assertNear(dUnused, [0]);
});

gpuTest("backward refuses seeds of another shape, seeds not recorded, and a second call", (gpu) => {
  using made = new Made(gpu);
  const [x, one, two] = [made.leaf(2), made.constant(1), made.constant(1, 2)];
  {
    using tape = new Tape(gpu);
    const output = silu(x);
    assert.throws(
      () => tape.backward([{ tensor: output, gradient: two }]),
      new ShapeError("Cannot run backward: expected the seed's gradient of shape [1], found [2]"),
    );
  }
  {
    using tape = new Tape(gpu);
    const constant = silu(one);
    assert.throws(
      () => tape.backward([{ tensor: constant, gradient: one }]),
      /expected a tensor that depends on a trainable one, found one that does not/,
    );
  }
  const tape = new Tape(gpu);
  const output = silu(x);
  tape.backward([{ tensor: output, gradient: one }]);
  assert.throws(
    () => tape.backward([{ tensor: output, gradient: one }]),
    /Cannot run backward: expected a recording tape, found one already used/,
  );
});

gpuTest("one tape a device; after its disposal nothing is recorded and another may start", (gpu) => {
  using made = new Made(gpu);
  const x = made.leaf(2);
  const tape = new Tape(gpu);
  assert.throws(() => new Tape(gpu), /Cannot start a tape: expected no other recording on this device/);
  silu(x);
  tape[Symbol.dispose]();
  tape[Symbol.dispose]();
  using next = new Tape(gpu);
  assert.equal(gpu.tape, next);
});

gpuTest("keep hands a tensor over: it outlives backward and is the caller's to release", async (gpu) => {
  using made = new Made(gpu);
  const [x, one] = [made.leaf(2), made.constant(1)];
  const before = gpu.stats().memory.usedBytes;
  const tape = new Tape(gpu);
  const kept = tape.keep(add(x, one));
  const output = silu(kept);
  tape.backward([{ tensor: output, gradient: one }]);
  assert.equal(gpu.stats().memory.usedBytes - before, 256);
  assertNear(await toHost(kept), [3]);
  release(kept);
});

gpuTest("activations are given back as soon as their last reader is done", (gpu) => {
  using made = new Made(gpu);
  const [x, one] = [made.leaf(...new Array(64).fill(0.1)), made.constant(...new Array(64).fill(1))];
  const tape = new Tape(gpu);
  let hidden: Tensor = x;
  for (let layer = 0; layer < 20; layer++) hidden = silu(hidden);
  const before = gpu.stats().memory;
  const held = before.usedBytes;
  tape.backward([{ tensor: hidden, gradient: one }]);
  const after = gpu.stats().memory;
  // 20 activations were held; the backward needs two gradients at a time, and no further one for each layer.
  assert.equal(held - after.usedBytes, 20 * 256);
  assert.ok(after.created - before.created <= 2, `found ${after.created - before.created} new buffers`);
});

gpuTest("gradients of parameters are written where they lie and nowhere else", async (gpu) => {
  using made = new Made(gpu);
  // A block of three tensors, as parameters lie in one: [17], [4, 5] and [7], each at a multiple of 64.
  const block = made.constant(...Array.from({ length: 192 }, (_, i) => 0.01 * i));
  const gradients = made.constant(...new Array(192).fill(0));
  const at = (offset: number, shape: number[]): Tensor => {
    const sizeBytes = shape.reduce((product, extent) => product * extent, 4);
    const range = (tensor: Tensor) => ({ ...tensor.range, offsetBytes: offset * 4, sizeBytes });
    const grad: Tensor = { ...gradients, shape, range: range(gradients) };
    return { ...block, shape, range: range(block), requiresGrad: true, grad };
  };
  const [a, b, c] = [at(0, [17]), at(64, [4, 5]), at(128, [1, 6])];
  const ones = (...shape: number[]): Tensor => {
    const tensor = made.constant(...new Array(shape.reduce((product, extent) => product * extent)).fill(1));
    return { ...tensor, shape };
  };
  const [forA, forB, forSwiglu, forC] = [ones(17), ones(4, 4), ones(1, 3), ones(1, 6)];
  const tape = new Tape(gpu);
  const outputs = [
    { tensor: add(silu(a), add(a, a)), gradient: forA },
    { tensor: matmul(b, b, { kind: "NT" }), gradient: forB },
    { tensor: swiglu(c), gradient: forSwiglu },
    { tensor: add(c, c), gradient: forC },
  ];
  tape.backward(outputs);
  const values = await toHost(gradients);
  const filled = (i: number) => i < 17 || (i >= 64 && i < 84) || (i >= 128 && i < 134);
  values.forEach((value, i) => assert.equal(value !== 0, filled(i), `element ${i} is ${value}`));
});

/** Rotates one row of two elements by position 1, in place. */
function turn(x: Tensor, table: Tensor): Tensor {
  return rope(x, upload(x.gpu, Uint32Array.of(1)), table);
}

gpuTest("storage that an op works on in place outlives the op, and is given back once", async (gpu) => {
  using made = new Made(gpu);
  const [x, one, table] = [made.row(2, 3), made.rowOf(1, 1), made.table(2)];
  const before = gpu.stats().memory.usedBytes;
  const tape = new Tape(gpu);
  const turned = turn(add(x, one), table);
  // Between the two nodes of the storage the backward takes buffers from the pool and gives them back.
  const output = silu(silu(turned));
  tape.backward([{ tensor: output, gradient: one }]);
  assert.equal(gpu.stats().memory.usedBytes, before);
  const [cos, sin] = [Math.cos(1), Math.sin(1)];
  const slope = (v: number) => siluSlope(v / (1 + Math.exp(-v))) * siluSlope(v);
  const [a, b] = [slope(3 * cos - 4 * sin), slope(4 * cos + 3 * sin)];
  assertNear(await toHost(x.grad), [a * cos + b * sin, b * cos - a * sin]);
});

gpuTest("an op in place refuses parameters, values that a recorded op needs, and a second turn", (gpu) => {
  using made = new Made(gpu);
  const [x, one, table] = [made.row(2, 3), made.rowOf(1, 1), made.table(2)];
  const refused = (found: string) =>
    new Error(`Cannot run rope in place: expected a tensor that nothing else reads, found ${found}`);
  const needed = refused("one whose values a recorded op needs");
  assert.throws(() => turn(x, table), refused("a parameter"));
  using _tape = new Tape(gpu);
  const read = add(x, one);
  silu(read);
  assert.throws(() => turn(read, table), needed);
  // An op that does not say that it can do without its output.
  const kept = record(gpu, { name: "kept", inputs: [x], output: emptyLike(x), backward: () => {} });
  assert.throws(() => turn(kept, table), needed);
  const spent = add(x, one);
  const turned = turn(spent, table);
  assert.throws(() => turn(spent, table), refused("one that was overwritten before"));
  assert.throws(
    () => add(spent, one),
    new Error("Cannot run add: expected values, found a tensor that was overwritten in place"),
  );
  add(turned, one);
});
