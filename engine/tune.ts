/**
 * Chooses how products are computed on this adapter: measures the candidates once for each kind and class of shape. A
 * candidate whose product is wrong here is left out. The choice decides the order of additions, so it is part of what
 * makes a run's bits: it is made before a run and does not change within one.
 * @module
 */
import { GPU_TILE, LARGE_TILE, type ProductKind, SMALL_TILE, TEXEL_TILE } from "../shaders/tile.ts";
import type { Gpu } from "./gpu.ts";
import { multiply } from "./ops/matmul.ts";
import {
  builtInPlan,
  choosePlans,
  type ProductClass,
  type ProductPlan,
  type ProductSize,
  tileFits,
} from "./ops/dispatch.ts";
import { empty, fromHost, release, scope, slice, type Tensor, toHost } from "./tensor.ts";

/** The candidates by name; the names are what is stored. */
export const PRODUCT_CANDIDATES: Readonly<Record<string, ProductPlan>> = {
  "64x64": { tile: GPU_TILE, splitTo: 0 },
  "64x64, k split": { tile: GPU_TILE, splitTo: 256 },
  "128x128": { tile: LARGE_TILE, splitTo: 0 },
  "128x128, k split": { tile: LARGE_TILE, splitTo: 256 },
  "32x32": { tile: SMALL_TILE, splitTo: 0 },
  "32x32, k split": { tile: SMALL_TILE, splitTo: 512 },
  "texels 16x64": { tile: TEXEL_TILE, splitTo: 0 },
};

/** The shape that stands for a class in measurements. */
const SHAPES: Readonly<Record<ProductClass, ProductSize>> = {
  large: { m: 2048, n: 2048, k: 1024 },
  narrow: { m: 2048, n: 64, k: 1024 },
  deep: { m: 768, n: 768, k: 4096 },
};
const KINDS: readonly ProductKind[] = ["NN", "NT", "TN"];

/** Names of candidates by kind and class, `NT large`; `built in` where none was better. */
export type TunedChoice = Readonly<Record<string, string>>;

const BUILT_IN = "built in";
/** A candidate must be this much faster than the built-in plan: less is noise. */
const GAIN = 0.97;

/** What the tuner may do; everything has a default. */
export interface TuneOptions {
  /** An earlier choice, from wherever it was kept; whatever is not one for this device is ignored. */
  readonly stored?: unknown;
  /** {@link PRODUCT_CANDIDATES} by default. */
  readonly candidates?: Readonly<Record<string, ProductPlan>>;
  /** Extents to measure by class. */
  readonly shapes?: Partial<Readonly<Record<ProductClass, ProductSize>>>;
  /** Least duration of a measurement. */
  readonly sampleMs?: number;
  /** Told what is measured, and which candidates are wrong. */
  readonly log?: (line: string) => void;
  /** Told how many of how many measurements are done; not where an earlier choice holds. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What the tuner found. */
export interface TuneResult {
  readonly choice: TunedChoice;
  /** False when the earlier choice was used. */
  readonly isMeasured: boolean;
  /** Candidates that gave a wrong product. */
  readonly rejected: readonly string[];
}

/**
 * Chooses the plans of a device's products and makes its ops follow them.
 *
 * @param gpu the device; nothing may be recorded on it yet
 * @param options an earlier choice, candidates, where to report
 * @returns the choice, to be kept for the next run
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tiny = { m: 8, n: 8, k: 8 };
 * const shapes = { large: tiny, narrow: tiny, deep: tiny };
 * const { choice } = await tuneProducts(gpu, { shapes, sampleMs: 0, candidates: {} });
 * assert.equal(choice["NT large"], "built in"); // nothing to choose from
 * const again = await tuneProducts(gpu, { stored: choice, candidates: {} });
 * assert.equal(again.isMeasured, false);
 * ```
 */
export async function tuneProducts(gpu: Gpu, options: TuneOptions = {}): Promise<TuneResult> {
  const { candidates = PRODUCT_CANDIDATES, log = () => {} } = options;
  const fitting = Object.entries(candidates).filter(([, { tile }]) => tileFits(gpu, tile));
  const plans = new Map(fitting);
  const earlier = readChoice(options.stored, plans);
  if (earlier) {
    usePlans(gpu, earlier, plans);
    return { choice: earlier, isMeasured: false, rejected: [] };
  }
  const rejected = new Set<string>();
  const choice: Record<string, string> = {};
  for (const kind of KINDS) {
    const right = [];
    for (const [name, plan] of plans) {
      if (await isRight(gpu, kind, plan)) right.push([name, plan] as const);
      else {
        rejected.add(`${kind} ${name}`);
        log(`tuning: ${kind} through ${name} is wrong on this adapter, left out`);
      }
    }
    for (const shape of Object.keys(SHAPES) as ProductClass[]) {
      const size = options.shapes?.[shape] ?? SHAPES[shape];
      const best = await fastest(gpu, { kind, shape, size, right, sampleMs: options.sampleMs ?? 30 });
      choice[`${kind} ${shape}`] = best;
      options.onProgress?.(Object.keys(choice).length, KINDS.length * Object.keys(SHAPES).length);
      log(`tuning: ${kind} ${shape} ${size.m} x ${size.n} x ${size.k}: ${best}`);
    }
  }
  usePlans(gpu, choice, plans);
  return { choice, isMeasured: true, rejected: [...rejected] };
}

function usePlans(gpu: Gpu, choice: TunedChoice, plans: ReadonlyMap<string, ProductPlan>): void {
  choosePlans(
    gpu,
    new Map(
      Object.entries(choice).flatMap(([key, name]) => {
        const plan = plans.get(name);
        return plan ? [[key, plan] as const] : [];
      }),
    ),
  );
}

/** A stored choice that names a known candidate for every kind and class, and nothing else. */
function readChoice(stored: unknown, plans: ReadonlyMap<string, ProductPlan>): TunedChoice | null {
  if (typeof stored !== "object" || stored === null) return null;
  const keys = KINDS.flatMap((kind) => Object.keys(SHAPES).map((shape) => `${kind} ${shape}`));
  const names = stored as Record<string, unknown>;
  const isComplete = Object.keys(names).length === keys.length && keys.every((key) => {
    const name = names[key];
    return typeof name === "string" && (name === BUILT_IN || plans.has(name));
  });
  return isComplete ? names as TunedChoice : null;
}

async function fastest(
  gpu: Gpu,
  { kind, shape, size, right, sampleMs }: {
    kind: ProductKind;
    shape: ProductClass;
    size: ProductSize;
    right: readonly (readonly [string, ProductPlan])[];
    sampleMs: number;
  },
): Promise<string> {
  const operands = placeOperands(gpu, kind, size);
  const run = (plan: ProductPlan, count: number) => timeOf(operands, { kind, plan, count });
  const builtIn = builtInPlan(gpu, shape);
  await run(builtIn, 1);
  let count = 1;
  while (count < 256 && await run(builtIn, count) < sampleMs) count *= 2;
  let best = { name: BUILT_IN, ms: GAIN * await leastOf(3, () => run(builtIn, count)) };
  for (const [name, plan] of right) {
    await run(plan, 1);
    const ms = await leastOf(3, () => run(plan, count));
    if (ms < best.ms) best = { name, ms };
  }
  Object.values(operands).forEach(release);
  return best.name;
}

async function leastOf(count: number, measure: () => Promise<number>): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < count; i++) least = Math.min(least, await measure());
  return least;
}

type Operands = Readonly<Record<"a" | "b" | "c", Tensor>>;

/** Contents do not change a product's time; zeros need no random numbers, and overwrite what was in the buffers. */
function placeOperands(gpu: Gpu, kind: ProductKind, { m, n, k }: ProductSize): Operands {
  const place = (shape: [number, number]) => {
    const tensor = empty(gpu, shape, { owner: "caller" });
    gpu.queue.clear(tensor.range);
    return tensor;
  };
  return {
    a: place(kind === "TN" ? [k, m] : [m, k]),
    b: place(kind === "NT" ? [n, k] : [k, n]),
    c: place([m, n]),
  };
}

async function timeOf(
  { a, b, c }: Operands,
  { kind, plan, count }: { kind: ProductKind; plan: ProductPlan; count: number },
): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < count; i++) multiply(kind, a, b, { tensor: c, accumulate: false }, { plan });
  await toHost(slice(c, { shape: [4], offset: 0 }));
  return performance.now() - start;
}

/** With edges in every direction; steps enough for two parts. */
const GATE: ProductSize = { m: 132, n: 68, k: 388 };

/** The numeric gate: one product with edges against sums in f64, added to what is there. */
async function isRight(gpu: Gpu, kind: ProductKind, plan: ProductPlan): Promise<boolean> {
  const { m, n, k } = GATE;
  const values = (count: number, step: number) =>
    Float32Array.from({ length: count }, (_, i) => (i * step % 31) / 31 - 0.5);
  const host = { a: values(m * k, 7), b: values(k * n, 11) };
  const a = fromHost(gpu, host.a, { shape: kind === "TN" ? [k, m] : [m, k] });
  const b = fromHost(gpu, host.b, { shape: kind === "NT" ? [n, k] : [k, n] });
  const c = fromHost(gpu, new Float32Array(m * n).fill(1), { shape: [m, n] });
  scope(gpu, () => multiply(kind, a, b, { tensor: c, accumulate: true }, { plan }));
  const found = await toHost(c);
  [a, b, c].forEach(release);
  return found.every((value, index) => {
    const [row, column] = [Math.floor(index / n), index % n];
    let sum = 1;
    for (let step = 0; step < k; step++) {
      sum += (kind === "TN" ? host.a[step * m + row] : host.a[row * k + step]) *
        (kind === "NT" ? host.b[column * k + step] : host.b[step * n + column]);
    }
    // Sums of 388 products of at most a quarter round to within this.
    return Math.abs(value - sum) <= 1e-4;
  });
}
