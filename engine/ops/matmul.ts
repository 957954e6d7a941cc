/**
 * Matrix products and their gradients.
 * @module
 */
import { COLUMNS_PER_ROWS_WORKGROUP, matmulForward, matmulRows } from "../../shaders/matmul.ts";
import { type ProductKind, type Tile, tileCols, tileRows } from "../../shaders/tile.ts";
import { expectShape, type Shape, ShapeError } from "../shape.ts";
import { empty, emptyLike, scope, storageOf, type Tensor, type TensorType } from "../tensor.ts";
import { type GradientSink, type GradientTarget, record } from "../tape.ts";
import { sumColumns, sumPartials } from "./column_sum.ts";
import {
  type ProductPlan,
  productPlan,
  type ProductSize,
  ROWS_KERNEL_LIMIT,
  splitSteps,
} from "./dispatch.ts";

/** What a product adds as it is stored, at no cost of its own. */
export interface ProductEpilogue {
  /** `[N]`, f32: added to every row. */
  readonly bias?: Tensor;
  /** `[M, N]`, stored as the result is: added to it. */
  readonly residual?: Tensor;
  /** Factor of the product, not of what is added; 1 by default. */
  readonly scale?: number;
}

/** A product as an op. */
export interface MatmulOptions extends ProductEpilogue {
  /** NN (default), NT (a linear layer with HF's `[out, in]` weight) or TN. */
  readonly kind?: ProductKind;
  /** How the result is stored: as the left operand by default. */
  readonly type?: "f32" | "f16";
}

/**
 * C = scale op(A) op(B) + bias + residual. Operands are f32, f16 or bf16 (sixteen bits where rows divide by four);
 * sums are f32.
 *
 * @param a `[M, K]`, or `[K, M]` for TN
 * @param b `[K, N]`, or `[N, K]` for NT
 * @param options kind of product, what is added, the result's type
 * @returns `[M, N]`
 * @throws {ShapeError} when the inner extents differ, an operand is not a matrix, what is added has another shape or
 * type, or an operand of sixteen bits has rows that do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(1, 2), { shape: [1, 2] });
 * const weight = fromHost(gpu, Float32Array.of(1, 0, 0, 1, 1, 1), { shape: [3, 2] });
 * assert.deepEqual([...await toHost(matmul(x, weight, { kind: "NT" }))], [1, 2, 3]);
 * const bias = fromHost(gpu, Float32Array.of(10, 20, 30), { shape: [3] });
 * assert.deepEqual([...await toHost(matmul(x, weight, { kind: "NT", bias }))], [11, 22, 33]);
 * ```
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { kind = "NN", bias, residual, scale } = options;
  const { m, n } = productSize(kind, a, b);
  const type = options.type ?? (a.type === "f16" ? "f16" : "f32");
  checkAdded(kind, { bias, residual, shape: [m, n], type });
  const c = emptyLike(kind === "TN" ? { ...a, capacity: m } : a, [m, n], { type });
  multiply(kind, a, b, { tensor: c, accumulate: false }, { bias, residual, scale });
  return record(a.gpu, {
    name: `matmul ${kind}`,
    inputs: [a, b, bias, residual].filter((input) => input !== undefined),
    output: c,
    isOutputFree: true,
    backward: (dC, sink) => {
      operandGradients({ kind, a, b, scale }, dC, sink);
      // C = ... + bias + residual: dBias = sum over rows of dC, dResidual = dC
      const dBias = bias && sink.into(bias);
      if (dBias) sumColumns(dC, dBias);
      if (residual) sink.pass(residual, dC);
    },
  });
}

function operandGradients(
  { kind, a, b, scale }: { kind: ProductKind; a: Tensor; b: Tensor; scale?: number },
  dC: Tensor,
  sink: GradientSink,
): void {
  const dA = sink.into(a);
  const dB = sink.into(b);
  switch (kind) {
    case "NN": // C = s A B: dA = s dC B^T, dB = s A^T dC
      if (dA) multiply("NT", dC, b, dA, { scale });
      if (dB) multiply("TN", a, dC, dB, { scale });
      break;
    case "NT": // C = s A B^T: dA = s dC B, dB = s dC^T A
      if (dA) multiply("NN", dC, b, dA, { scale });
      if (dB) multiply("TN", dC, a, dB, { scale });
      break;
    case "TN": // C = s A^T B: dA = s B dC^T, dB = s A dC
      if (dA) multiply("NT", b, dC, dA, { scale });
      if (dB) multiply("NN", a, dC, dB, { scale });
      break;
  }
}

/**
 * Writes or adds scale op(A) op(B) + bias + residual to a target, without recording.
 *
 * @param kind which operand is stored transposed
 * @param a left operand
 * @param b right operand
 * @param target `[M, N]`, f32 or f16, and whether to add to it
 * @param options what is added besides, and how to compute it where that is not the adapter's own choice
 * @throws {ShapeError} as {@link matmul}
 */
export function multiply(
  kind: ProductKind,
  a: Tensor,
  b: Tensor,
  target: GradientTarget,
  options: ProductEpilogue & { readonly plan?: ProductPlan } = {},
): void {
  const c = target.tensor;
  const size = productSize(kind, a, b);
  const { m, n, k } = size;
  expectShape(`matmul ${kind}`, "the result", c.shape, [m, n]);
  checkAdded(kind, { ...options, shape: c.shape, type: c.type });
  const vector = isVector(kind, size);
  if (!vector && [a, b, c].some(({ type }) => type !== "f32")) {
    throw new ShapeError(
      `Cannot run matmul ${kind}: expected rows that divide by four, as 16-bit elements need, found ` +
        `[${a.shape.join(", ")}] and [${b.shape.join(", ")}]`,
    );
  }
  const product = { kind, a, b, target, size, vector, epilogue: options };
  if (!options.plan && kind === "NT" && m <= ROWS_KERNEL_LIMIT) return multiplyRows(product);
  const plan = options.plan ?? productPlan(a.gpu, kind, size);
  const steps = splitSteps(plan, size);
  const isWhole = steps >= k || options.bias || options.residual || c.type !== "f32";
  if (isWhole) multiplyTiles(product, { tile: plan.tile, steps: k });
  else multiplyParts(product, { tile: plan.tile, steps });
}

/** A product whose operands were checked. */
interface CheckedProduct {
  readonly kind: ProductKind;
  readonly a: Tensor;
  readonly b: Tensor;
  readonly target: GradientTarget;
  readonly size: ProductSize;
  readonly vector: boolean;
  readonly epilogue: ProductEpilogue;
}

function multiplyTiles(product: CheckedProduct, { tile, steps }: { tile: Tile; steps: number }): void {
  const { kind, a, size: { m, n, k }, vector } = product;
  const splits = Math.ceil(k / steps);
  a.gpu.dispatch(matmulForward, {
    constants: { kind, tile, vector, storage: storagesOf(product) },
    bindings: bindingsOf(product),
    params: { ...paramsOf(product), splits, split_k: steps },
    workgroups: [Math.ceil(n / tileCols(tile)) * splits, Math.ceil(m / tileRows(tile))],
  });
}

/** Parts of k side by side, then their sum in order: the same bits every time, unlike atomic additions. */
function multiplyParts(product: CheckedProduct, { tile, steps }: { tile: Tile; steps: number }): void {
  const { a, target, size: { m, n, k } } = product;
  const { gpu } = a;
  const splits = Math.ceil(k / steps);
  scope(gpu, () => {
    const partial = empty(gpu, [splits, m, n]);
    multiplyTiles({ ...product, target: { tensor: partial, accumulate: false } }, { tile, steps });
    sumPartials(partial, target);
  });
}

function multiplyRows(product: CheckedProduct): void {
  const { a: { gpu }, size: { m, n }, vector } = product;
  gpu.dispatch(matmulRows, {
    constants: {
      rows: m === 1 ? 1 : ROWS_KERNEL_LIMIT,
      lanes: gpu.adapter.isCpu ? 8 : 64,
      vector,
      storage: storagesOf(product),
      texels: gpu.adapter.isCpu,
    },
    bindings: bindingsOf(product),
    params: paramsOf(product),
    workgroups: Math.ceil(n / COLUMNS_PER_ROWS_WORKGROUP),
  });
}

function storagesOf({ a, b, target }: CheckedProduct) {
  return { a: storageOf(a), b: storageOf(b), c: storageOf(target.tensor) };
}

function bindingsOf({ a, b, target, epilogue: { bias, residual } }: CheckedProduct) {
  // What is absent is never read, but something must be bound.
  const absent = { ...a.range, sizeBytes: 16 };
  return {
    a: a.range,
    b: b.range,
    bias: bias?.range ?? absent,
    residual: residual?.range ?? absent,
    c: target.tensor.range,
  };
}

function paramsOf({ size, target, epilogue: { bias, residual, scale = 1 } }: CheckedProduct) {
  return {
    ...size,
    scale,
    has_bias: bias ? 1 : 0,
    has_residual: residual ? 1 : 0,
    accumulate: target.accumulate ? 1 : 0,
  };
}

function checkAdded(
  kind: ProductKind,
  { bias, residual, shape, type }: ProductEpilogue & { shape: Shape; type: TensorType },
): void {
  const check = (what: string, found: Tensor, expected: { shape: Shape; type: TensorType }) => {
    expectShape(`matmul ${kind}`, what, found.shape, expected.shape);
    if (found.type === expected.type) return;
    throw new ShapeError(
      `Cannot run matmul ${kind}: expected ${what} of type ${expected.type}, found ${found.type}`,
    );
  };
  if (bias) check("the bias", bias, { shape: [shape[1]], type: "f32" });
  if (residual) check("the residual", residual, { shape, type });
}

function productSize(kind: ProductKind, a: Tensor, b: Tensor): ProductSize {
  if (a.shape.length !== 2 || b.shape.length !== 2) {
    throw new ShapeError(
      `Cannot run matmul ${kind}: expected two matrices, found [${a.shape.join(", ")}] and [${
        b.shape.join(", ")
      }]`,
    );
  }
  const [m, k] = kind === "TN" ? [a.shape[1], a.shape[0]] : a.shape;
  const [n, inner] = kind === "NT" ? b.shape : [b.shape[1], b.shape[0]];
  if (k !== inner) {
    throw new ShapeError(
      `Cannot run matmul ${kind}: expected equal inner extents, found [${a.shape.join(", ")}] and [${
        b.shape.join(", ")
      }]`,
    );
  }
  return { m, n, k };
}

/** Whether loads and stores can be vec4: every stored row divides by four (with TN, k is not a row length). */
function isVector(kind: ProductKind, { m, n, k }: ProductSize): boolean {
  return n % 4 === 0 && (kind === "TN" ? m % 4 === 0 : k % 4 === 0);
}
