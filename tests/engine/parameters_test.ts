import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { type Shape, ShapeError, sizeOf } from "../../engine/shape.ts";
import { toHost } from "../../engine/tensor.ts";
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

gpuTest("zeroGradients and copyFrom reach every block", async (gpu) => {
  using small = smallGpu(gpu, 8192);
  using source = createParameters(small.gpu, MODEL, { trainable: true });
  using target = createParameters(small.gpu, MODEL, { trainable: false });
  const written = fill(source);
  target.copyFrom(source);
  for (const [name, values] of written) assert.deepEqual(await target.read(name), values, name);
  for (const { weight, gradient } of source.blocks) small.gpu.queue.copy(weight.range, gradient!.range);
  assert.deepEqual(await source.readGradient("embed.weight"), written.get("embed.weight"));
  source.zeroGradients();
  for (const name of MODEL.keys()) {
    assert.ok((await source.readGradient(name)).every((value) => value === 0), name);
  }
  using other = createParameters(gpu, MODEL, { trainable: false });
  assert.throws(() => other.copyFrom(source), ShapeError);
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
