import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { type Shape, ShapeError, sizeOf } from "../../engine/shape.ts";
import { toHost, writeHost } from "../../engine/tensor.ts";
import { narrow, widen } from "../../engine/dtype.ts";
import { gpuTest, testGpu } from "../gpu.ts";

/** A device of which one binding holds `maxBindingBytes`: the real limits are too large to reach in a test. */
class SmallGpu extends Gpu {
  constructor(gpu: Gpu, readonly limitBytes: number) {
    super(gpu.device, gpu.adapter, { poison: true });
  }

  override get maxBindingBytes(): number {
    return this.limitBytes;
  }
}

const MODEL = new Map<string, Shape>([
  ["norm.weight", [17]],
  ["embed.weight", [300, 16]],
  ["mlp.weight", [7, 9]],
  ["bias", [5]],
  ["scalar", []],
]);

/** Each element of each parameter another number. */
function valuesOf(shape: Shape, start: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: sizeOf(shape) }, (_, i) => start + i);
}

function fill(parameters: Parameters): Map<string, Float32Array<ArrayBuffer>> {
  let start = 1;
  const written = new Map<string, Float32Array<ArrayBuffer>>();
  for (const [name, shape] of parameters.shapes) {
    const values = valuesOf(shape, start);
    parameters.write(name, values);
    written.set(name, values);
    start += values.length;
  }
  return written;
}

gpuTest("parameters in one block: zero at first, then what was written, nothing beside it", async (gpu) => {
  using parameters = createParameters(gpu, MODEL, { trainable: true });
  assert.equal(parameters.blocks.length, 1);
  assert.equal(parameters.count, 17 + 4800 + 63 + 5 + 1);
  const [{ weight, gradient }] = parameters.blocks;
  assert.ok((await toHost(weight)).every((value) => value === 0));
  assert.ok((await toHost(gradient!)).every((value) => value === 0));
  const written = fill(parameters);
  for (const [name, values] of written) {
    assert.deepEqual(await parameters.read(name), values, name);
    assert.equal(parameters.get(name).requiresGrad, true);
    assert.deepEqual(parameters.get(name).grad!.shape, MODEL.get(name));
    assert.ok((await parameters.readGradient(name)).every((value) => value === 0));
  }
  const inside = [...written.values()].reduce((total, values) => total + values.length, 0);
  const block = await toHost(weight);
  assert.equal(block.filter((value) => value !== 0).length, inside, "the padding is still zero");
});

gpuTest("what decays lies first: matrices by default, in the order given", (gpu) => {
  using parameters = createParameters(gpu, MODEL, { trainable: true });
  const offsetOf = (name: string) => parameters.get(name).range.offsetBytes / 4;
  // [300, 16] takes 4800 elements, [7, 9] takes 63 rounded up to 64.
  const order = ["embed.weight", "mlp.weight", "norm.weight", "bias", "scalar"];
  assert.deepEqual(order.map(offsetOf), [0, 4800, 4864, 4928, 4992]);
  assert.deepEqual(parameters.blocks.map(({ decayElements }) => decayElements), [4864]);
  using chosen = createParameters(gpu, MODEL, { trainable: true, decays: (name) => name === "bias" });
  assert.equal(chosen.get("bias").range.offsetBytes, 0);
  assert.equal(chosen.blocks[0].decayElements, 64);
  using none = createParameters(gpu, MODEL, { trainable: true, decays: () => false });
  assert.equal(none.blocks[0].decayElements, 0);
});

gpuTest("frozen parameters have no gradients", async (gpu) => {
  using parameters = createParameters(gpu, MODEL, { trainable: false });
  assert.equal(parameters.blocks[0].gradient, undefined);
  assert.equal(parameters.get("bias").requiresGrad, false);
  assert.equal(parameters.get("bias").grad, undefined);
  await assert.rejects(
    parameters.readGradient("bias"),
    /Cannot read the gradient of bias: it is not trained/,
  );
});

gpuTest(
  "a parameter larger than a binding becomes row shards, each of a multiple of 64 rows",
  async (gpu) => {
    using small = smallGpu(gpu, 8192);
    using parameters = createParameters(small.gpu, MODEL, { trainable: true });
    const shards = parameters.shards("embed.weight");
    assert.deepEqual(shards.map(({ shape }) => shape), [[128, 16], [128, 16], [44, 16]]);
    for (const { weight, decayElements } of parameters.blocks) {
      assert.ok(weight.shape[0] * 4 <= 8192);
      assert.ok(decayElements <= weight.shape[0]);
    }
    assert.deepEqual(parameters.blocks.map(({ decayElements }) => decayElements), [2048, 2048, 768]);
    for (const [name, values] of fill(parameters)) {
      assert.deepEqual(
        await parameters.read(name),
        values,
        name,
      );
    }
    assert.throws(
      () => parameters.get("embed.weight"),
      new ShapeError("Cannot use embed.weight: expected it in one binding, found 3 row shards"),
    );
  },
);

gpuTest("rows are written across the borders of shards, and no others", async (gpu) => {
  using small = smallGpu(gpu, 8192);
  using parameters = createParameters(small.gpu, MODEL, { trainable: false });
  const expected = fill(parameters).get("embed.weight")!;
  for (const [firstRow, rows] of [[0, 1], [127, 2], [100, 190], [299, 1], [128, 128], [0, 300]]) {
    const part = valuesOf([rows, 16], -1e5 * (firstRow + 1));
    parameters.write("embed.weight", part, firstRow);
    expected.set(part, firstRow * 16);
    assert.deepEqual(await parameters.read("embed.weight"), expected, `${rows} rows from ${firstRow}`);
  }
});

gpuTest(
  "write refuses parts of rows and rows past the end; names and rows that do not fit are refused",
  (gpu) => {
    using small = smallGpu(gpu, 8192);
    using parameters = createParameters(small.gpu, MODEL, { trainable: false });
    assert.throws(() => parameters.write("embed.weight", new Float32Array(17)), ShapeError);
    assert.throws(
      () => parameters.write("embed.weight", new Float32Array(32), 299),
      new ShapeError(
        "Cannot write embed.weight: expected whole rows of 16 within 300, found 32 values at row 299",
      ),
    );
    assert.throws(
      () => parameters.shards("lm_head.weight"),
      new ReferenceError("Cannot find parameter lm_head.weight: the model has 5 others"),
    );
    assert.throws(
      () => createParameters(small.gpu, new Map([["wide", [64, 33]]]), { trainable: false }),
      new RangeError("Cannot place wide: expected 64 rows of 33 in one binding, found too large a row"),
    );
  },
);

gpuTest("zeroGradients, snapshot and restore reach every block", async (gpu) => {
  using small = smallGpu(gpu, 8192);
  using parameters = createParameters(small.gpu, MODEL, { trainable: true });
  const written = fill(parameters);
  using kept = parameters.snapshot();
  for (const [name, values] of written) parameters.write(name, values.map((value) => -value));
  parameters.restore(kept);
  for (const [name, values] of written) assert.deepEqual(await parameters.read(name), values, name);
  for (const { weight, gradient } of parameters.blocks) small.gpu.queue.copy(weight.range, gradient!.range);
  assert.deepEqual(await parameters.readGradient("embed.weight"), written.get("embed.weight"));
  parameters.zeroGradients();
  for (const name of MODEL.keys()) {
    assert.ok((await parameters.readGradient(name)).every((value) => value === 0), name);
  }
});

/** Pieces that start anywhere: 3 rows of 5, 7 of 5 and 2 of 5; a vector of 3 and one of 9. */
const GROUPED = new Map<string, Shape>([
  ["q.weight", [3, 5]],
  ["q.bias", [3]],
  ["k.weight", [7, 5]],
  ["o.weight", [5, 3]],
  ["k.bias", [9]],
  ["v.weight", [2, 5]],
]);
const GROUPS = [["q.weight", "k.weight", "v.weight"], ["q.bias", "k.bias"]];

gpuTest("a group is one tensor of its members' rows, each still read and written alone", async (gpu) => {
  using parameters = createParameters(gpu, GROUPED, { trainable: true, groups: GROUPS });
  assert.equal(parameters.blocks.length, 1);
  const written = fill(parameters);
  for (const [group, shape] of [[GROUPS[0], [12, 5]], [GROUPS[1], [12]]] as const) {
    const joined = parameters.joined(group);
    assert.deepEqual(joined.shape, shape);
    assert.equal(joined.range.offsetBytes % 256, 0);
    assert.deepEqual([...await toHost(joined)], group.flatMap((name) => [...written.get(name)!]));
    // The gradient of the group is those of its members.
    writeHost(joined.grad!, valuesOf(shape, 1));
    let start = 1;
    for (const name of group) {
      assert.deepEqual(await parameters.readGradient(name), valuesOf(GROUPED.get(name)!, start), name);
      start += written.get(name)!.length;
    }
  }
  const rows = Float32Array.of(-1, -2, -3, -4, -5);
  parameters.write("k.weight", rows, 6);
  const expected = written.get("k.weight")!;
  expected.set(rows, 30);
  for (const [name, values] of written) assert.deepEqual(await parameters.read(name), values, name);
  assert.throws(
    () => parameters.joined(["q.weight", "k.weight"]),
    new ReferenceError("Cannot join q.weight, k.weight: they were not made as a group"),
  );
});

gpuTest("groups that cannot be one tensor are refused by name", (gpu) => {
  const make = (groups: string[][]) => () => createParameters(gpu, GROUPED, { trainable: false, groups });
  assert.throws(make([["q.weight", "o.weight"]]), {
    name: "ShapeError",
    message:
      "Cannot group q.weight, o.weight: expected rows as q.weight [3, 5] has them, found o.weight [5, 3]",
  });
  assert.throws(make([["q.weight", "q.bias"]]), ShapeError);
  assert.throws(
    make([["q.weight", "none"]]),
    /expected parameters of this model, each in one group, found none/,
  );
  assert.throws(make([["q.weight", "k.weight"], ["v.weight", "k.weight"]]), /found k\.weight/);
  const large = new Map<string, Shape>([["a", [10, 5]], ["b", [4, 5]]]);
  assert.throws(
    () => createParameters(new SmallGpu(gpu, 256), large, { trainable: false, groups: [["a", "b"]] }),
    new RangeError("Cannot place the group a, b: expected at most 64 elements in one binding, found 70"),
  );
});

for (const storage of ["f16", "bf16"] as const) {
  gpuTest(`frozen ${storage} packs matrices alone, and keeps every bit of ${storage} values`, async (gpu) => {
    const shapes = new Map<string, Shape>([["a", [66, 8]], ["norm", [7]], ["b", [3, 4]], ["c", [5, 4]]]);
    using parameters = createParameters(gpu, shapes, { trainable: false, storage, groups: [["b", "c"]] });
    assert.deepEqual(parameters.blocks.map(({ weight }) => weight.type), [storage, "f32"]);
    // Every finite pattern of 16 bits comes up in some window of the table.
    const patterns = Uint16Array.from({ length: 528 }, (_, i) => i * 124 + 7).map((bits) =>
      (bits & 0x7c00) === 0x7c00 ? bits & 0xbfff : bits
    );
    const values = widen(new Uint8Array(patterns.buffer), storage) as Float32Array<ArrayBuffer>;
    parameters.write("a", values);
    const b = Float32Array.from({ length: 12 }, (_, i) => i / 4);
    parameters.write("b", b);
    parameters.write("c", Float32Array.of(0.1, -1, 2, 0.3), 4);
    parameters.write("norm", Float32Array.from({ length: 7 }, (_, i) => 1 + i / 10));
    assert.deepEqual(narrow(await parameters.read("a"), storage), new Uint8Array(patterns.buffer));
    assert.deepEqual(await parameters.read("b"), b);
    const rounded = widen(narrow(Float32Array.of(0.1, -1, 2, 0.3), storage), storage);
    assert.deepEqual((await parameters.read("c")).subarray(16), rounded);
    assert.deepEqual(await parameters.read("norm"), Float32Array.from({ length: 7 }, (_, i) => 1 + i / 10));
    assert.deepEqual([...(await toHost(parameters.joined(["b", "c"]))).subarray(28)], [...rounded]);
    const joined = parameters.joined(["b", "c"]);
    assert.deepEqual([joined.type, joined.range.offsetBytes % 256, joined.shape], [storage, 0, [8, 4]]);
  });
}

gpuTest("trained f16 keeps f32 masters and gradients, and a copy that kernels read", async (gpu) => {
  const shapes = new Map<string, Shape>([["a", [5, 4]], ["norm", [7]], ["b", [3, 4]], ["c", [5, 4]]]);
  using parameters = createParameters(gpu, shapes, { trainable: true, storage: "f16", groups: [["b", "c"]] });
  const [{ weight, copy, gradient }, ...others] = parameters.blocks;
  assert.deepEqual([weight.type, copy!.type, gradient!.type, others.length], ["f32", "f16", "f32", 0]);
  for (const name of ["a", "norm", "b", "c"]) {
    const values = Float32Array.from({ length: sizeOf(shapes.get(name)!) }, (_, i) => (i + 1) / 3);
    parameters.write(name, values);
    const tensor = parameters.get(name);
    assert.deepEqual(await parameters.read(name), values, name);
    assert.equal(tensor.type, name === "norm" ? "f32" : "f16");
    assert.deepEqual([tensor.grad!.type, tensor.requiresGrad], ["f32", true]);
    const stored = name === "norm" ? values : widen(narrow(values, "f16"), "f16");
    assert.deepEqual(await toHost(tensor), stored, name);
  }
  assert.deepEqual(parameters.joined(["b", "c"]).grad!.shape, [8, 4]);
  using kept = parameters.snapshot();
  const before = await toHost(parameters.get("a"));
  parameters.write("a", new Float32Array(20));
  parameters.restore(kept);
  assert.deepEqual(await toHost(parameters.get("a")), before);
});

gpuTest(
  "stored elements of any type are written by rows, over the edges of row shards, as write does it",
  async (gpu) => {
    using small = smallGpu(gpu, 4096);
    const shapes = new Map<string, Shape>([["embed.weight", [300, 16]], ["norm.weight", [17]]]);
    const values = valuesOf([190, 16], 1).map((value) => value / 7);
    for (const storage of ["f32", "f16", "bf16"] as const) {
      for (const trainable of storage === "bf16" ? [false] : [false, true]) {
        for (const dtype of ["f32", "f16", "bf16"] as const) {
          const make = () => createParameters(small.gpu, shapes, { trainable, storage });
          using written = make();
          using expected = make();
          const bytes = narrow(values, dtype) as Uint8Array<ArrayBuffer>;
          written.writeStored("embed.weight", bytes, { dtype, firstRow: 50 });
          expected.write("embed.weight", widen(bytes, dtype) as Float32Array<ArrayBuffer>, 50);
          assert.deepEqual(await written.read("embed.weight"), await expected.read("embed.weight"));
          for (const [i, shard] of written.shards("embed.weight").entries()) {
            assert.deepEqual(await toHost(shard), await toHost(expected.shards("embed.weight")[i]));
          }
          written.writeStored("norm.weight", bytes.subarray(0, 3 * bytes.length / values.length), {
            dtype,
            firstRow: 9,
          });
          assert.deepEqual(
            (await written.read("norm.weight")).slice(8, 13),
            Float32Array.from([
              ...[0, ...widen(bytes, dtype).subarray(0, 3), 0],
            ]),
          );
        }
      }
    }
  },
);

gpuTest(
  "stored elements are converted and read back piece by piece, with nothing lost between pieces",
  async (gpu) => {
    const shapes = new Map<string, Shape>([["w", [300, 1024]]]);
    const values = valuesOf([300, 1024], 1).map((value) => 1 / value);
    for (const storage of ["f32", "f16", "bf16"] as const) {
      using parameters = createParameters(gpu, shapes, { trainable: false, storage });
      parameters.writeStored("w", narrow(values, "f32") as Uint8Array<ArrayBuffer>, { dtype: "f32" });
      const expected = narrow(values, storage);
      const read = new Uint8Array(expected.length);
      let [offset, pieces] = [0, 0];
      for await (const { dtype, bytes } of parameters.readStored("w", { elements: 100_000 })) {
        assert.equal(dtype, storage);
        read.set(bytes, offset);
        offset += bytes.length;
        pieces++;
      }
      assert.equal(pieces, 4);
      assert.equal(offset, expected.length);
      assert.ok(read.every((byte, i) => byte === expected[i]), storage);
    }
  },
);

gpuTest("stored elements that are no whole rows, or that the storage cannot hold, are refused", (gpu) => {
  using parameters = createParameters(gpu, new Map([["w", [4, 8]]]), { trainable: false, storage: "f16" });
  const bytes = narrow(Float32Array.from({ length: 8 }, (_, i) => i === 5 ? 1e5 : i), "bf16") as Uint8Array<
    ArrayBuffer
  >;
  assert.throws(() => parameters.writeStored("w", bytes, { dtype: "f32" }), ShapeError);
  assert.throws(() => parameters.writeStored("w", bytes, { dtype: "bf16", firstRow: 4 }), ShapeError);
  assert.throws(
    () => parameters.writeStored("w", bytes, { dtype: "bf16" }),
    new RangeError("Cannot write w: expected values that f16 can hold, found 99840 at 5"),
  );
  assert.equal(parameters.storage("w"), "f16");
});

gpuTest("what 16-bit storage cannot hold is refused by name", (gpu) => {
  const make = (shape: Shape, options: { trainable: boolean; storage: "f16" | "bf16" }) =>
    createParameters(gpu, new Map([["odd", shape]]), options);
  for (const trainable of [true, false]) {
    assert.throws(
      () => make([4, 6], { trainable, storage: "f16" }),
      new ShapeError("Cannot store odd as f16: expected rows that divide by four, found [4, 6]"),
    );
  }
  assert.throws(() => make([4, 8], { trainable: true, storage: "bf16" }), TypeError);
  using parameters = make([1, 4], { trainable: true, storage: "f16" });
  assert.throws(
    () => parameters.write("odd", Float32Array.of(1, 70000, 0, 0)),
    new RangeError("Cannot write odd: expected values that f16 can hold, found 70000 at 1"),
  );
});

/** Shares the test device; its pool ends with the test. */
function smallGpu(gpu: Gpu, limitBytes: number): { gpu: Gpu } & Disposable {
  const small = new SmallGpu(gpu, limitBytes);
  return {
    gpu: small,
    [Symbol.dispose]() {
      assert.equal(small.stats().memory.usedBytes, 0, "parameters left buffers in use");
      small.buffers.destroy();
    },
  };
}

Deno.test("the small device is the test device with another limit", async () => {
  const gpu = await testGpu();
  assert.equal(new SmallGpu(gpu, 8192).maxBindingBytes, 8192);
  assert.ok(gpu.maxBindingBytes > 1e8);
});
