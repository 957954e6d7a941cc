import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type DType, narrow, widen } from "../../engine/dtype.ts";
import { Gpu } from "../../engine/gpu.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { type Shape, sizeOf } from "../../engine/shape.ts";
import { CheckpointError } from "../../train/errors.ts";
import { openCheckpoint } from "../../train/models/checkpoint.ts";
import { loadedLayout, loadWeights } from "../../train/models/checkpoint_load.ts";
import { writeCheckpoint } from "../../train/models/checkpoint_write.ts";
import { loadModel, saveModel } from "../../train/models/model_files.ts";
import type { StoredElements } from "../../train/models/safetensors.ts";
import type { TensorSource } from "../../train/models/safetensors_write.ts";
import { seededRandom } from "../reference/random.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const DTYPES = ["f32", "f16", "bf16"] as const;

const SHAPES = new Map<string, Shape>([
  ["embed.weight", [300, 16]],
  ["norm.weight", [17]],
  ["mlp.weight", [7, 8]],
  ["scalar", []],
]);

const VALUES = new Map<string, Float32Array<ArrayBuffer>>(
  (() => {
    const random = seededRandom(5);
    return Array.from(SHAPES, ([name, shape]) => {
      return [name, Float32Array.from({ length: sizeOf(shape) }, () => random() - 0.5)];
    });
  })(),
);

function sources(values = VALUES): TensorSource[] {
  return Array.from(SHAPES, ([name, shape]) => ({ name, shape, data: () => values.get(name)! }));
}

const rounded = (values: Float32Array, dtype: DType) => widen(narrow(values, dtype), dtype);

/** Every file of a folder. */
function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(
    readdirSync(folder).sort().map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]),
  );
}

async function load(folder: string, parameters: Parameters, pieceBytes?: number): Promise<void> {
  using checkpoint = await openCheckpoint(folder);
  await loadWeights(parameters, checkpoint, { pieceBytes });
}

async function save(folder: string, parameters: Parameters, dtype: DType | "loaded"): Promise<void> {
  const tensors = Array.from(parameters.shapes, ([name, shape]) => ({
    ...{ name, shape },
    data: () => parameters.readStored(name),
  }));
  await writeCheckpoint(folder, tensors, { dtype, layout: loadedLayout(parameters) });
}

for (const dtype of DTYPES) {
  for (const storage of DTYPES) {
    gpuTest(`${dtype} files load as ${storage}: rounded once, whatever the pieces`, async (gpu) => {
      const folder = temporaryFolder();
      await writeCheckpoint(folder, sources(), { dtype, maxShardBytes: 4096 });
      for (const pieceBytes of [1, 100, undefined]) {
        using parameters = createParameters(gpu, SHAPES, { trainable: false, storage });
        await load(folder, parameters, pieceBytes);
        for (const [name, values] of VALUES) {
          // Vectors are f32 whatever the storage.
          const kept = SHAPES.get(name)!.length >= 2 ? storage : "f32";
          assert.deepEqual(await parameters.read(name), rounded(rounded(values, dtype), kept), name);
        }
      }
    });
  }

  gpuTest(
    `a model in row shards loads and saves to equal bytes in ${dtype}, file by file as it was`,
    async (gpu) => {
      // 4096 bytes to a binding, and to the GPU's buffers: the embedding takes several row shards.
      const small = new SmallGpu(gpu, 4096);
      const [first, second] = [temporaryFolder(), temporaryFolder()];
      await writeCheckpoint(first, sources(), { dtype, maxShardBytes: 600 });
      const parameters = createParameters(small, SHAPES, { trainable: false, storage: dtype });
      assert.ok(parameters.shards("embed.weight").length >= 3);
      await load(first, parameters, 1000);
      assert.deepEqual(await parameters.read("embed.weight"), rounded(VALUES.get("embed.weight")!, dtype));
      await save(second, parameters, "loaded");
      assert.ok(Object.keys(filesOf(first)).length > 2);
      assert.deepEqual(filesOf(second), filesOf(first));
    },
  );
}

/** A device of which one binding holds `limitBytes`: the real limits are too large to reach in a test. */
class SmallGpu extends Gpu {
  constructor(gpu: Gpu, readonly limitBytes: number) {
    super(gpu.device, gpu.adapter, { poison: true });
  }

  override get maxBindingBytes(): number {
    return this.limitBytes;
  }
}

gpuTest("trained f16 parameters keep what an f32 file holds, and a copy of it", async (gpu) => {
  const folder = temporaryFolder();
  await writeCheckpoint(folder, sources(), { dtype: "f32" });
  using parameters = createParameters(gpu, SHAPES, { trainable: true, storage: "f16" });
  await load(folder, parameters);
  for (const [name, values] of VALUES) assert.deepEqual(await parameters.read(name), values, name);
  const [copy] = parameters.shards("mlp.weight");
  const bytes = await gpu.queue.read(copy.range);
  assert.deepEqual(new Uint8Array(bytes, 0, 112), narrow(VALUES.get("mlp.weight")!, "f16"));
});

gpuTest("loading allocates nothing on the GPU", async (gpu) => {
  const folder = temporaryFolder();
  await writeCheckpoint(folder, sources(), { dtype: "bf16" });
  using parameters = createParameters(gpu, SHAPES, { trainable: false, storage: "f16" });
  const before = gpu.stats().memory;
  await load(folder, parameters);
  assert.deepEqual(gpu.stats().memory, before);
});

gpuTest("a weight that is not finite is named with its index, in whichever piece it lies", async (gpu) => {
  for (const dtype of DTYPES) {
    const folder = temporaryFolder();
    const embed = VALUES.get("embed.weight")!.slice();
    embed[16 * 213 + 5] = NaN;
    embed[16 * 290] = Infinity;
    const spoilt = new Map([...VALUES, ["embed.weight", embed]]);
    await writeCheckpoint(folder, sources(spoilt), { dtype, maxShardBytes: 4096 });
    for (const pieceBytes of [64, 1000, undefined]) {
      using parameters = createParameters(gpu, SHAPES, { trainable: false, storage: "f32" });
      using checkpoint = await openCheckpoint(folder);
      await assert.rejects(loadWeights(parameters, checkpoint, { pieceBytes }), {
        name: "CheckpointError",
        message: `Cannot read ${checkpoint.tensors.get("embed.weight")!.file}: tensor "embed.weight": ` +
          "expected finite values, found NaN at [213, 5]",
      });
      assert.equal(loadedLayout(parameters), undefined);
    }
  }
});

gpuTest("a weight that the storage cannot hold is refused, one that stays f32 is not", async (gpu) => {
  const folder = temporaryFolder();
  const large = (name: string) => new Map([...VALUES, [name, VALUES.get(name)!.slice().fill(1e5, 3, 4)]]);
  await writeCheckpoint(folder, sources(large("mlp.weight")), { dtype: "bf16" });
  using parameters = createParameters(gpu, SHAPES, { trainable: false, storage: "f16" });
  await assert.rejects(load(folder, parameters), {
    name: "CheckpointError",
    message: `Cannot load ${folder} as f16: expected weights that it can hold, found 99840 in mlp.weight`,
  });
  await writeCheckpoint(folder, sources(large("norm.weight")), { dtype: "bf16" });
  await load(folder, parameters);
  assert.equal((await parameters.read("norm.weight"))[3], 99840);
});

gpuTest(
  "tensors that are not there, or have another shape, are refused before any is loaded",
  async (gpu) => {
    const folder = temporaryFolder();
    await writeCheckpoint(folder, sources().slice(1), { dtype: "f32" });
    using parameters = createParameters(gpu, SHAPES, { trainable: false });
    const path = join(folder, "model.safetensors");
    await assert.rejects(load(folder, parameters), {
      name: "CheckpointError",
      message: `Cannot read ${path}: tensor "embed.weight": expected shape [300, 16], found no such tensor`,
    });
    const turned = { ...sources()[0], shape: [16, 300] };
    await writeCheckpoint(folder, [turned, ...sources().slice(1)], { dtype: "f32" });
    await assert.rejects(load(folder, parameters), {
      message: `Cannot read ${path}: tensor "embed.weight": expected shape [300, 16], found [16, 300]`,
    });
    assert.ok((await parameters.read("norm.weight")).every((value) => value === 0));
  },
);

gpuTest("a file cut short while it is loaded is a CheckpointError, and nothing else fails", async (gpu) => {
  const folder = temporaryFolder();
  await writeCheckpoint(folder, sources(), { dtype: "f32", maxShardBytes: 4096 });
  using parameters = createParameters(gpu, SHAPES, { trainable: false });
  using checkpoint = await openCheckpoint(folder);
  for (const { file } of checkpoint.tensors.values()) Deno.truncateSync(file, 100);
  await assert.rejects(
    loadWeights(parameters, checkpoint),
    (error: Error) => error instanceof CheckpointError && /the file has been cut short$/.test(error.message),
  );
});

gpuTest(
  "a load that fails has ended all its reads, and a read that fails before its turn waits for it",
  async (gpu) => {
    const folder = temporaryFolder();
    await writeCheckpoint(folder, sources(), { dtype: "f32" });
    using parameters = createParameters(gpu, SHAPES, { trainable: false });
    using checkpoint = await openCheckpoint(folder);
    const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    let [started, reading] = [0, 0];
    const withReads = (result: (index: number) => Promise<StoredElements>) => ({
      ...checkpoint,
      async readStored() {
        reading++;
        try {
          return await result(started++);
        } finally {
          reading--;
        }
      },
    });
    const nan = { dtype: "f32", bytes: new Uint8Array(64).fill(255) } as const;
    const slowSecond = withReads((index) => index === 0 ? Promise.resolve(nan) : later(20).then(() => nan));
    await assert.rejects(loadWeights(parameters, slowSecond, { pieceBytes: 64 }), /found NaN at/);
    assert.equal(reading, 0);
    started = 0;
    const slowFirst = withReads((index) =>
      index === 0 ? later(20).then(() => nan) : Promise.reject(new CheckpointError("cut short"))
    );
    await assert.rejects(loadWeights(parameters, slowFirst, { pieceBytes: 64 }), /found NaN at/);
  },
);

for (const dtype of DTYPES) {
  gpuTest(`a sharded model loads, and saves to equal bytes, in ${dtype}`, async (gpu) => {
    const [first, second, third] = [temporaryFolder(), temporaryFolder(), temporaryFolder()];
    using model = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
    await saveModel(first, model, { tokenizer: tinyTokenizer(), dtype, maxShardBytes: 2500 });
    assert.ok(Object.keys(filesOf(first)).includes("model.safetensors.index.json"));
    const { model: loaded, tokenizer } = await loadModel(gpu, first, { trainable: true });
    using again = loaded;
    await saveModel(second, again, { tokenizer, dtype: "loaded" });
    assert.deepEqual(filesOf(second), filesOf(first));
    await saveModel(third, again, { tokenizer, dtype, maxShardBytes: 1e9 });
    assert.deepEqual(Object.keys(filesOf(third)), [
      ...["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    ]);
    using single = (await loadModel(gpu, third, { trainable: false })).model;
    for (const name of again.parameters.shapes.keys()) {
      assert.deepEqual(await single.parameters.read(name), await again.parameters.read(name), name);
    }
  });
}

gpuTest(
  "a tied head that is stored too is accepted when equal, and refused naming both when not",
  async (gpu) => {
    const folder = temporaryFolder();
    using model = tinyModel(gpu, { config: { tie_word_embeddings: true } });
    await saveModel(folder, model, { tokenizer: tinyTokenizer() });
    const [head, embedding] = ["lm_head.weight", "model.embed_tokens.weight"];
    const values = await model.parameters.read(embedding);
    const tensors = Array.from(model.parameters.shapes, ([name, shape]) => ({
      ...{ name, shape },
      data: () => model.parameters.readStored(name),
    }));
    const write = (data: Float32Array) =>
      writeCheckpoint(folder, [...tensors, { name: head, shape: [16, 16], data: () => data }], {
        ...{ dtype: "f32", maxShardBytes: 2000 },
      });
    await write(values);
    const { model: loaded, tokenizer } = await loadModel(gpu, folder, { trainable: false });
    using again = loaded;
    assert.deepEqual(await again.parameters.read(embedding), values);
    // The head is not a parameter: it is not written back, and the shard that held it alone is not missed.
    await saveModel(folder, again, { tokenizer });
    using checkpoint = await openCheckpoint(folder);
    assert.ok(!checkpoint.tensors.has(head));
    await write(values.slice().fill(0.5, 40, 41));
    await assert.rejects(
      loadModel(gpu, folder, { trainable: false }),
      (error: Error) =>
        error instanceof CheckpointError && error.message.includes(head) && error.message.includes(embedding),
    );
  },
);
