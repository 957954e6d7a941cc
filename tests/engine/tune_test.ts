import assert from "node:assert/strict";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import {
  productClass,
  type ProductPlan,
  productPlan,
  splitSteps,
  tileFits,
} from "../../engine/ops/dispatch.ts";
import { tuneProducts, type TuneResult } from "../../engine/tune.ts";
import { CPU_TILE, GPU_TILE, LARGE_TILE, TEXEL_TILE } from "../../shaders/tile.ts";
import { tuneFromCache, tuneKey } from "../../train/tune_cache.ts";
import { benchTraining } from "../../train/bench/training.ts";
import { Gpu as Device } from "../../engine/gpu.ts";
import { gpuTest, LAYOUTS, testGpu } from "../gpu.ts";

const TINY = { m: 8, n: 8, k: 8 };
const QUICK = { shapes: { large: TINY, narrow: TINY, deep: TINY }, sampleMs: 0 };
const CANDIDATES = {
  "64x64": { tile: GPU_TILE, splitTo: 0 },
  "64x64, k split": { tile: GPU_TILE, splitTo: 16 },
};
/** Its second row of lanes shares the first row's operand: it compiles and runs, and its product is wrong. */
const BROKEN: ProductPlan = { tile: { ...TEXEL_TILE, lanesY: 2 }, splitTo: 0 };

/** A device of its own choice of plans, on the shared one. */
async function freshGpu(): Promise<Gpu> {
  const { device, adapter } = await testGpu("gpu");
  return new Device(device, adapter);
}

Deno.test("the numeric gate rejects a candidate that is wrong, whatever its speed", async () => {
  const gpu = await freshGpu();
  const lines: string[] = [];
  const { choice, rejected } = await tuneProducts(gpu, {
    ...QUICK,
    candidates: { ...CANDIDATES, broken: BROKEN },
    log: (line) => lines.push(line),
  });
  assert.deepEqual(rejected, ["NN broken", "NT broken", "TN broken"]);
  assert.equal(Object.values(choice).includes("broken"), false);
  assert.equal(Object.keys(choice).length, 9);
  assert.match(lines[0], /^tuning: NN through broken is wrong on this adapter, left out$/);
  assert.equal(lines.length, 3 + 9);
  assert.equal(gpu.stats().memory.usedBytes, 0);
});

Deno.test("products follow the choice, and an earlier choice is used without measuring", async () => {
  const gpu = await freshGpu();
  const names = ["NN", "NT", "TN"].flatMap((kind) =>
    ["large", "narrow", "deep"].map((shape) => [`${kind} ${shape}`, "built in"])
  );
  const stored = { ...Object.fromEntries(names), "NT narrow": "64x64, k split" };
  const before = gpu.stats().dispatches;
  const result = await tuneProducts(gpu, { ...QUICK, candidates: CANDIDATES, stored });
  assert.equal(result.isMeasured, false);
  assert.equal(gpu.stats().dispatches, before);
  assert.deepEqual(productPlan(gpu, "NT", { m: 64, n: 4096, k: 64 }), CANDIDATES["64x64, k split"]);
  assert.deepEqual(productPlan(gpu, "NN", { m: 64, n: 4096, k: 64 }), { tile: GPU_TILE, splitTo: 0 });
});

Deno.test("the cache: written once, read again; damaged, foreign, incomplete or unknown content is measured anew", async () => {
  const folder = join(await Deno.makeTempDir(), "tuning");
  const options = { ...QUICK, candidates: {}, folder };
  const tune = async () => await tuneFromCache(await freshGpu(), options) as TuneResult;
  assert.equal((await tune()).isMeasured, true);
  assert.equal((await tune()).isMeasured, false);
  const [{ name }] = [...Deno.readDirSync(folder)];
  const path = join(folder, name);
  const good = JSON.parse(await Deno.readTextFile(path));
  assert.deepEqual(good.key, tuneKey(await freshGpu()));
  const { "NT deep": _, ...incomplete } = good.choice;
  const damaged: unknown[] = [
    { ...good, key: { ...good.key, keel: "0.0.1" } },
    { ...good, key: { ...good.key, adapter: "another" } },
    { ...good, key: { ...good.key, format: 0 } },
    { ...good, choice: incomplete },
    { ...good, choice: { ...good.choice, "NT deep": "a tiling of another version" } },
    { ...good, choice: { ...good.choice, "NT deep": 7 } },
    null,
  ];
  const texts = damaged.map((content) => JSON.stringify(content));
  // A key that parsing leaves out.
  texts.push(JSON.stringify(good).replace('"choice":{', '$&"__proto__":"a",'), "", "{", "\u0000");
  for (const text of texts) {
    await Deno.writeTextFile(path, text);
    assert.equal((await tune()).isMeasured, true, text);
    assert.deepEqual(JSON.parse(await Deno.readTextFile(path)).key, good.key);
  }
  assert.equal((await tune()).isMeasured, false);
  await Deno.remove(folder, { recursive: true });
});

gpuTest("a software adapter is not tuned unless asked", async (gpu) => {
  const folder = "/nowhere";
  assert.equal(await tuneFromCache(gpu, { folder }), null);
}, { layouts: ["cpu"] });

Deno.test("tiles fit by invocations, workgroup memory and subgroup size", () => {
  const gpuWith = (limits: object, subgroupSize: number) => {
    const device = {
      limits: {
        maxComputeInvocationsPerWorkgroup: 256,
        maxComputeWorkgroupSizeX: 256,
        maxComputeWorkgroupSizeY: 256,
        maxComputeWorkgroupStorageSize: 16384,
        ...limits,
      },
    };
    return { device, adapter: { subgroupSize } } as unknown as Gpu;
  };
  const fitting = (limits: object, subgroupSize = 8) =>
    [CPU_TILE, TEXEL_TILE, GPU_TILE, LARGE_TILE].filter((tile) =>
      tileFits(gpuWith(limits, subgroupSize), tile)
    );
  assert.deepEqual(fitting({}), [CPU_TILE, TEXEL_TILE, GPU_TILE, LARGE_TILE]);
  assert.deepEqual(fitting({}, 32), [CPU_TILE, GPU_TILE, LARGE_TILE]);
  assert.deepEqual(fitting({ maxComputeInvocationsPerWorkgroup: 128 }), [CPU_TILE, TEXEL_TILE, GPU_TILE]);
  assert.deepEqual(fitting({ maxComputeWorkgroupStorageSize: 4096 }), [CPU_TILE, TEXEL_TILE]);
});

Deno.test("classes of shapes, and how k is split", () => {
  assert.equal(productClass({ m: 768, n: 768, k: 8192 }), "deep");
  assert.equal(productClass({ m: 8192, n: 768, k: 768 }), "large");
  assert.equal(productClass({ m: 8192, n: 128, k: 256 }), "narrow");
  const plan = { tile: GPU_TILE, splitTo: 256 };
  assert.equal(splitSteps(plan, { m: 4096, n: 4096, k: 4096 }), 4096, "tiles enough");
  assert.equal(splitSteps(plan, { m: 64, n: 64, k: 8192 }), 128, "no part below 128 steps");
  assert.equal(splitSteps(plan, { m: 512, n: 512, k: 1000 }), 256, "a multiple of 64");
  assert.equal(splitSteps({ ...plan, splitTo: 0 }, { m: 64, n: 64, k: 8192 }), 8192, "not asked for");
});

gpuTest("a training run uses few pipelines, however its batches differ", async (shared) => {
  const gpu = new Device(shared.device, shared.adapter);
  const shape = { layers: 2, hidden: 16, heads: 2, mlp: 20, vocabulary: 24, batch: 3, tokens: 10 };
  const run = (tokens: number, batch: number) =>
    benchTraining(gpu, "sft", { shape: { ...shape, tokens, batch }, samples: 1, stepsPerSample: 1 });
  await run(10, 3);
  const { pipelines } = gpu.stats();
  assert.ok(pipelines <= 40, `found ${pipelines} pipelines`);
  await run(17, 2);
  await run(33, 1);
  assert.equal(gpu.stats().pipelines, pipelines);
}, { layouts: LAYOUTS });
