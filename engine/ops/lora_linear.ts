/**
 * A linear layer with low-rank adapters beside it (LoRA, arXiv 2106.09685).
 * @module
 */
import { LORA_WORKGROUP, loraCollect, loraSpread } from "../../shaders/lora.ts";
import type { ProductKind } from "../../shaders/tile.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { type GradientSink, type GradientTarget, noGrad, record } from "../tape.ts";
import { empty, emptyLike, expectType, scope, type Tensor } from "../tensor.ts";
import { sumColumns } from "./column_sum.ts";
import { multiply, type ProductEpilogue } from "./matmul.ts";
import { type Factors, multiplyPair } from "./matmul_pair.ts";

/** The second factor of a module's adapter. */
export interface LoraPart {
  /** The first of the result's columns that are the module's. */
  readonly first: number;
  /** `[its columns, r]`, f32. */
  readonly b: Tensor;
}

/** The adapters of a product, and the rest of it. */
export interface LoraLinearOptions extends Pick<ProductEpilogue, "bias" | "residual"> {
  /** How the weight lies: NT `[out, in]`, NN `[in, out]`. */
  readonly kind: Exclude<ProductKind, "TN">;
  /** `[G r, in]`, f32: the first factors of G modules, one after the other. */
  readonly a: Tensor;
  /** G of them, in the order of `a`; columns that belong to none have no adapter. */
  readonly parts: readonly LoraPart[];
  /** alpha / r, or alpha / sqrt(r) (arXiv 2312.03732). */
  readonly scale: number;
  /** Whether the adapter's last product is part of the weight's kernel, as it is by default, or one of its own. */
  readonly form?: "joined" | "separate";
}

/**
 * y = x W^T + bias + residual + s (x A^T) B^T, where the columns of several modules lie side by side and each has its own
 * A and B. The weight may be frozen in any storage: it gets a gradient only where it wants one. Sums are f32.
 *
 * @param x `[N, in]`, f32 or f16
 * @param weight `[out, in]` or `[in, out]`
 * @param options the adapters, how the weight lies, what is added
 * @returns `[N, out]`, stored as x is
 * @throws {ShapeError} when shapes do not match, modules overlap, or with sixteen-bit storage G r does not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const matrix = (rows: number, ...values: number[]) =>
 *   fromHost(gpu, Float32Array.from(values), { shape: [rows, values.length / rows] });
 * const [x, weight] = [matrix(1, 1, 2), matrix(2, 1, 0, 0, 1)];
 * const a = matrix(1, 1, 1); // x A^T = 3
 * const y = loraLinear(x, weight, { kind: "NT", a, parts: [{ first: 1, b: matrix(1, 10) }], scale: 0.5 });
 * assert.deepEqual([...await toHost(y)], [1, 2 + 0.5 * 3 * 10]); // the second column alone has an adapter
 * ```
 */
export function loraLinear(x: Tensor, weight: Tensor, options: LoraLinearOptions): Tensor {
  const { kind, a, bias, residual, scale, parts } = options;
  const sizes = checkSizes(x, weight, options);
  const { gpu } = x;
  const y = emptyLike(x, [sizes.rows, sizes.out], { type: x.type });
  // s x A^T, in f32 whatever x is stored as: it is small.
  const down = emptyLike(x, [sizes.rows, sizes.width]);
  multiply("NT", x, a, { tensor: down, accumulate: false }, { scale });
  // Not recorded: a tape would keep the matrix of all B.
  noGrad(gpu, () =>
    scope(gpu, () => {
      const first = { kind, a: x, b: weight };
      const second = { kind: "NT", a: down, b: spread(parts, sizes) } as const;
      addUp(first, second, { tensor: y, accumulate: false }, options);
    }));
  return record(gpu, {
    name: "lora_linear",
    inputs: [x, weight, a, ...parts.map(({ b }) => b), bias, residual].filter((input) => input !== undefined),
    output: y,
    isOutputFree: true,
    backward: (dY, sink) => {
      scope(gpu, () => inputGradients({ x, weight, dY, down, sizes, options }, sink));
      // y = x W^T + ...: dW = dY^T x; with W^T stored, dW^T = x^T dY
      const dWeight = sink.into(weight);
      if (dWeight && kind === "NT") multiply("TN", dY, x, dWeight);
      else if (dWeight) multiply("TN", x, dY, dWeight);
      const dBias = bias && sink.into(bias);
      if (dBias) sumColumns(dY, dBias);
      if (residual) sink.pass(residual, dY);
    },
  });
}

/** Extents: N, in, out, r, G r. */
interface LoraSizes {
  readonly rows: number;
  readonly out: number;
  readonly rank: number;
  readonly width: number;
}

/** H = s x A^T, y = x W^T + H B^T: dB = dY^T H, dH = s dY B (s included, for what follows), dA = dH^T x, dX = dY W + dH A. */
function inputGradients(
  { x, weight, dY, down, sizes, options }: {
    x: Tensor;
    weight: Tensor;
    dY: Tensor;
    down: Tensor;
    sizes: LoraSizes;
    options: LoraLinearOptions;
  },
  sink: GradientSink,
): void {
  const { rows, out, width } = sizes;
  const { a, kind, parts, scale } = options;
  const targets = parts.map(({ b }) => sink.into(b));
  const [first] = targets;
  if (isWhole(parts, sizes)) {
    if (first) multiply("TN", dY, down, first);
  } else if (targets.some((target) => target)) {
    const dAll = empty(x.gpu, [out, width]);
    multiply("TN", dY, down, { tensor: dAll, accumulate: false });
    parts.forEach((part, index) => {
      const target = targets[index];
      if (target) collect(dAll, target, placeOf(part, index, sizes));
    });
  }
  const dA = sink.into(a);
  const dX = sink.into(x);
  if (!dA && !dX) return;
  const dDown = emptyLike(x, [rows, width]);
  multiply("NN", dY, spread(parts, sizes), { tensor: dDown, accumulate: false }, { scale });
  if (dA) multiply("TN", dDown, x, dA);
  if (!dX) return;
  addUp(
    { kind: kind === "NT" ? "NN" : "NT", a: dY, b: weight },
    { kind: "NN", a: dDown, b: a },
    dX,
    { form: options.form },
  );
}

/** Both products into the target. */
function addUp(
  first: Factors,
  second: Factors,
  target: GradientTarget,
  { form = "joined", bias, residual }: Pick<LoraLinearOptions, "form" | "bias" | "residual">,
): void {
  if (form === "joined") return multiplyPair(first, second, target, { bias, residual });
  multiply(first.kind, first.a, first.b, target, { bias, residual });
  multiply(second.kind, second.a, second.b, { ...target, accumulate: true });
}

/** Whether there is one module, which has all columns: its B needs no place among others. */
function isWhole([{ first, b }, ...others]: readonly LoraPart[], { out }: LoraSizes): boolean {
  return others.length === 0 && first === 0 && b.shape[0] === out;
}

/** Where a module's B is in the matrix of all. */
function placeOf({ first, b }: LoraPart, index: number, { rank, width }: LoraSizes) {
  return { rows: b.shape[0], rank, columns: width, first_row: first, first_column: index * rank };
}

/** `[out, G r]`: every B in the rows and columns of its module, zeros elsewhere. As large as G of the adapter's factors. */
function spread(parts: readonly LoraPart[], sizes: LoraSizes): Tensor {
  const [{ b: { gpu } }] = parts;
  if (isWhole(parts, sizes)) return parts[0].b;
  const all = empty(gpu, [sizes.out, sizes.width]);
  const write = (b: Tensor, place: ReturnType<typeof placeOf>) =>
    gpu.dispatch(loraSpread, {
      constants: {},
      bindings: { b: b.range, all: all.range },
      params: place,
      workgroups: Math.ceil(place.rows * place.columns / LORA_WORKGROUP),
    });
  let end = 0;
  const bare = (first: number, until: number) => {
    if (first === until) return;
    write(parts[0].b, {
      rows: until - first,
      rank: 0,
      columns: sizes.width,
      first_row: first,
      first_column: 0,
    });
  };
  parts.forEach((part, index) => {
    bare(end, part.first);
    write(part.b, placeOf(part, index, sizes));
    end = part.first + part.b.shape[0];
  });
  bare(end, sizes.out);
  return all;
}

function collect(
  dAll: Tensor,
  { tensor, accumulate }: GradientTarget,
  place: ReturnType<typeof placeOf>,
): void {
  dAll.gpu.dispatch(loraCollect, {
    constants: {},
    bindings: { d_all: dAll.range, d_b: tensor.range },
    params: { ...place, accumulate: accumulate ? 1 : 0 },
    workgroups: Math.ceil(place.rows * place.rank / LORA_WORKGROUP),
  });
}

function checkSizes(x: Tensor, weight: Tensor, { kind, a, parts }: LoraLinearOptions): LoraSizes {
  expectShape("lora_linear", "x", x.shape, [-1, -1]);
  expectShape("lora_linear", "a", a.shape, [-1, x.shape[1]]);
  expectType("lora_linear", "a", a, "f32");
  const [rows] = x.shape;
  const out = kind === "NT" ? weight.shape[0] : weight.shape[1];
  const [width] = a.shape;
  const rank = width / parts.length;
  if (parts.length === 0 || !Number.isInteger(rank)) {
    throw new ShapeError(
      `Cannot run lora_linear: expected a to hold the rows of ${parts.length} modules of one rank, found ${width}`,
    );
  }
  if (width % 4 !== 0 && (x.type !== "f32" || weight.type !== "f32")) {
    throw new ShapeError(
      `Cannot run lora_linear: expected ranks that add up to a multiple of four, as 16-bit elements need, found ${width}`,
    );
  }
  let end = 0;
  for (const { first, b } of parts) {
    expectShape("lora_linear", "b", b.shape, [-1, rank]);
    expectType("lora_linear", "b", b, "f32");
    if (first < end || first + b.shape[0] > out) {
      throw new ShapeError(
        `Cannot run lora_linear: expected modules in order within ${out} columns, found one from ${first} to ` +
          `${first + b.shape[0]} after ${end}`,
      );
    }
    end = first + b.shape[0];
  }
  return { rows, out, rank, width };
}
