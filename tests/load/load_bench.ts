/**
 * Measures how fast weights come from the disk to the GPU, and what host memory that takes, on a generated checkpoint.
 * `deno run -R -W -E -S --allow-ffi --allow-run tests/load/load_bench.ts [--megabytes 500] [--markdown]`
 *
 * Each case runs in a process of its own, so that no case's memory is hidden in that of another.
 *
 * @module
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type DType, DTYPE_SIZE_BYTES, narrow } from "../../engine/dtype.ts";
import { openGpu } from "../../engine/gpu.ts";
import { createParameters } from "../../engine/parameters.ts";
import { type Shape, sizeOf } from "../../engine/shape.ts";
import { readConditions } from "../../train/bench/conditions.ts";
import { openCheckpoint } from "../../train/models/checkpoint.ts";
import { loadWeights } from "../../train/models/checkpoint_load.ts";
import { writeCheckpoint } from "../../train/models/checkpoint_write.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { formatMarkdownTable, formatTable } from "../../train/table.ts";

/** Repetitions; saving waits for the disk, and takes ten times as long. */
const SAMPLES = { raw: 5, load: 5, save: 3 };
const SHARDS = 5;

interface Case {
  /** Raw reads the bytes alone; load opens, checks and uploads; save reads back and writes. */
  readonly action: "raw" | "load" | "save";
  readonly dtype: DType;
  readonly storage: DType;
  readonly sharded: boolean;
  /** Drops the files from the system's page cache before each sample. */
  readonly cold: boolean;
  /** Times the size of the others. */
  readonly scale?: number;
}

interface Result {
  readonly sizeBytes: number;
  readonly seconds: number[];
  readonly gpuBytes: number;
  /** Most resident memory over that before, when the parameters were in memory already. */
  readonly besideBytes: number;
}

const CASES: readonly Case[] = [
  ...[false, true].map((cold) =>
    ({ action: "raw", dtype: "f32", storage: "f32", sharded: false, cold }) as const
  ),
  ...(["f32", "f16", "bf16"] as const).flatMap((dtype) =>
    [false, true].map((sharded) => ({ action: "load", dtype, storage: dtype, sharded, cold: false }) as const)
  ),
  { action: "load", dtype: "f32", storage: "f32", sharded: true, cold: true },
  { action: "load", dtype: "f32", storage: "f32", sharded: false, cold: false, scale: 2 },
  ...(["f16", "bf16"] as const).map((dtype) =>
    ({ action: "load", dtype, storage: "f32", sharded: false, cold: false }) as const
  ),
  { action: "load", dtype: "f32", storage: "f16", sharded: false, cold: false },
  ...(["f32", "f16", "bf16"] as const).map((dtype) =>
    ({ action: "save", dtype, storage: dtype, sharded: true, cold: false }) as const
  ),
];

/** Of a Llama with so many layers that its weights take about `targetBytes`. */
function shapesFor(targetBytes: number, dtype: DType): Map<string, Shape> {
  const [C, F, V] = [768, 2048, 32000];
  const shapes = new Map<string, Shape>([["model.embed_tokens.weight", [V, C]], ["lm_head.weight", [V, C]]]);
  const sizeBytes = () =>
    [...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0) *
    DTYPE_SIZE_BYTES[dtype];
  for (let layer = 0; sizeBytes() < targetBytes; layer++) {
    const prefix = `model.layers.${layer}`;
    shapes.set(`${prefix}.input_layernorm.weight`, [C]);
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [C]);
    for (const name of ["q", "k", "v", "o"]) shapes.set(`${prefix}.self_attn.${name}_proj.weight`, [C, C]);
    for (const name of ["gate", "up"]) shapes.set(`${prefix}.mlp.${name}_proj.weight`, [F, C]);
    shapes.set(`${prefix}.mlp.down_proj.weight`, [C, F]);
  }
  return shapes;
}

async function generate(folder: string, { shapes, dtype, sharded }: {
  shapes: ReadonlyMap<string, Shape>;
  dtype: DType;
  sharded: boolean;
}): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const values = Float32Array.from({ length: 2 ** 20 }, (_, i) => Math.sin(i) / 50);
  const bytes = narrow(values, dtype);
  const size = DTYPE_SIZE_BYTES[dtype];
  const tensors = Array.from(shapes, ([name, shape]) => ({
    name,
    shape,
    *data() {
      const count = sizeOf(shape);
      for (let start = 0; start < count; start += values.length) {
        yield { dtype, bytes: bytes.subarray(0, Math.min(values.length, count - start) * size) };
      }
    },
  }));
  const totalBytes = [...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape) * size, 0);
  await writeCheckpoint(folder, tensors, {
    dtype,
    maxShardBytes: sharded ? Math.ceil(totalBytes / SHARDS) : 2 * totalBytes,
  });
}

/** GNU dd tells the system to forget a file. */
async function dropCache(folder: string): Promise<void> {
  for (const { name } of Deno.readDirSync(folder)) {
    const args = [`if=${join(folder, name)}`, "iflag=nocache", "count=0"];
    const { success, stderr } = await new Deno.Command("dd", { args, stderr: "piped" }).output();
    if (!success) throw new Error(`Cannot drop the cache: ${new TextDecoder().decode(stderr)}`);
  }
}

async function readRaw(folder: string): Promise<void> {
  const buffer = new Uint8Array(16 * 2 ** 20);
  for (const { name } of Deno.readDirSync(folder)) {
    using file = await Deno.open(join(folder, name));
    while (await file.read(buffer) !== null);
  }
}

/** The most resident memory while `action` runs, over that before. */
async function peakOver(action: () => Promise<void>): Promise<number> {
  const before = Deno.memoryUsage().rss;
  let most = before;
  const sample = () => void (most = Math.max(most, Deno.memoryUsage().rss));
  const timer = setInterval(sample, 1);
  await action();
  clearInterval(timer);
  sample();
  return most - before;
}

async function measure(folder: string, one: Case): Promise<Result> {
  const files = [...Deno.readDirSync(folder)];
  const sizeBytes = files.reduce((sum, { name }) => sum + Deno.statSync(join(folder, name)).size, 0);
  const seconds: number[] = [];
  const timed = async (action: () => Promise<void>) => {
    if (one.cold) await dropCache(folder);
    const start = performance.now();
    await action();
    seconds.push((performance.now() - start) / 1000);
  };
  let besideBytes = 0;
  if (one.action === "raw") {
    for (let i = 0; i < SAMPLES.raw; i++) await timed(() => readRaw(folder));
    return { sizeBytes, seconds, gpuBytes: 0, besideBytes };
  }
  await ensureAdapter();
  using gpu = await openGpu();
  const shapes = await shapesOf(folder);
  using parameters = createParameters(gpu, shapes, { trainable: false, storage: one.storage });
  const gpuBytes = gpu.stats().memory.usedBytes;
  // Waits until the GPU is done with what comes before.
  const settle = () => gpu.queue.read({ ...parameters.blocks[0].weight.range, sizeBytes: 16 });
  const load = () =>
    timed(async () => {
      using checkpoint = await openCheckpoint(folder);
      await loadWeights(parameters, checkpoint);
      await settle();
    });
  const save = () =>
    timed(async () => {
      const tensors = Array.from(shapes, ([name, shape]) => ({
        ...{ name, shape },
        data: () => parameters.readStored(name),
      }));
      const target = Deno.makeTempDirSync({ prefix: "keel-load-bench-" });
      await writeCheckpoint(target, tensors, { dtype: one.dtype, maxShardBytes: sizeBytes / SHARDS });
      await Deno.remove(target, { recursive: true });
    });
  await settle();
  const action = one.action === "load" ? load : save;
  besideBytes = await peakOver(action);
  for (let i = 1; i < SAMPLES[one.action]; i++) await action();
  return { sizeBytes, seconds, gpuBytes, besideBytes };
}

async function shapesOf(folder: string): Promise<Map<string, Shape>> {
  using checkpoint = await openCheckpoint(folder);
  return new Map(Array.from(checkpoint.tensors, ([name, { shape }]) => [name, shape]));
}

async function runCase(folder: string, one: Case): Promise<Result> {
  const args = ["run", "-q", "-R", "-W", "-E", "-S", "--allow-ffi", "--allow-run"];
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [...args, import.meta.filename!, "--case", JSON.stringify({ folder, one })],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot measure ${JSON.stringify(one)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

function rowOf(one: Case, { sizeBytes, seconds, gpuBytes, besideBytes }: Result): (string | number)[] {
  const speeds = seconds.map((value) => sizeBytes / 1e6 / value).sort((a, b) => a - b);
  const [median, least, most] = [speeds[speeds.length >> 1], speeds[0], speeds.at(-1)!].map(Math.round);
  const what = one.action === "raw" ? "read" : one.action;
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  const types = one.action === "raw"
    ? "-"
    : one.dtype === one.storage
    ? one.dtype
    : `${one.dtype} as ${one.storage}`;
  return [
    ...[what, types, one.sharded ? `${SHARDS} files` : "1 file", one.cold ? "dropped" : "warm"],
    ...[median, least, most, (sizeBytes / 1e6).toFixed(0)],
    ...(one.action === "raw" ? ["-", "-"] : [mebibytes(gpuBytes), mebibytes(besideBytes)]),
  ];
}

const { values: flags } = parseArgs({
  options: {
    megabytes: { type: "string", default: "500" },
    markdown: { type: "boolean", default: false },
    case: { type: "string" },
  },
});
if (flags.case) {
  const { folder, one } = JSON.parse(flags.case);
  console.log(JSON.stringify(await measure(folder, one)));
} else {
  await ensureAdapter();
  using gpu = await openGpu();
  const { adapter, keel, deno, system, cores, date, load } = readConditions(gpu);
  console.log(`- Adapter: ${adapter}; Keel ${keel}, Deno ${deno}, ${system}, ${cores} cores`);
  console.log(`- ${date}, load average ${load.toFixed(2)} at the start\n`);
  const root = Deno.makeTempDirSync({ prefix: "keel-load-bench-" });
  try {
    const rows = [];
    const made = new Set<string>();
    for (const one of CASES) {
      const { scale = 1 } = one;
      const folder = join(root, `${one.dtype}-${one.sharded}-${scale}`);
      const shapes = shapesFor(Number(flags.megabytes) * 1e6 * scale, one.dtype);
      if (!made.has(folder)) await generate(folder, { shapes, dtype: one.dtype, sharded: one.sharded });
      made.add(folder);
      rows.push(rowOf(one, await runCase(folder, one)));
    }
    const headers = [
      "what",
      "type",
      "files",
      "page cache",
      "MB/s",
      "min",
      "max",
      "MB",
      "GPU, MiB",
      "beside, MiB",
    ];
    console.log((flags.markdown ? formatMarkdownTable : formatTable)(headers, rows));
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}
