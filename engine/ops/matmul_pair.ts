/**
 * Two products added up in one kernel.
 * @module
 */
import { matmulPair } from "../../shaders/matmul_pair.ts";
import { type ProductKind, tileCols, tileRows } from "../../shaders/tile.ts";
import type { GradientTarget } from "../tape.ts";
import { storageOf, type Tensor } from "../tensor.ts";
import { productPlan, type ProductSize, ROWS_KERNEL_LIMIT, splitSteps } from "./dispatch.ts";
import { multiply, type ProductEpilogue } from "./matmul.ts";

/** Two matrices to multiply; NN or NT. */
export interface Factors {
  /** Which operand is stored transposed. */
  readonly kind: Exclude<ProductKind, "TN">;
  /** `[M, K]` */
  readonly a: Tensor;
  /** `[K, N]` for NN, `[N, K]` for NT. */
  readonly b: Tensor;
}

/**
 * Writes or adds A B + A2 B2 + bias + residual to a target, without recording. In one kernel where the first product
 * would be one, else one after the other.
 *
 * @param first the larger product
 * @param second with the same M and N, and a small K
 * @param target `[M, N]`, f32 or f16, and whether to add to it
 * @param options what is added besides
 * @throws {ShapeError} as `matmul`
 */
export function multiplyPair(
  first: Factors,
  second: Factors,
  target: GradientTarget,
  options: Pick<ProductEpilogue, "bias" | "residual"> = {},
): void {
  const size = sizeOf(first);
  if (!isOneKernel(first, size, options)) {
    multiply(first.kind, first.a, first.b, target, options);
    multiply(second.kind, second.a, second.b, { ...target, accumulate: true });
    return;
  }
  const { gpu } = first.a;
  const k2 = second.a.shape[1];
  const { tile } = productPlan(gpu, first.kind, size);
  const absent = { ...first.a.range, sizeBytes: 16 };
  gpu.dispatch(matmulPair, {
    constants: {
      kind: first.kind,
      tile,
      vector: [size.n, size.k, k2].every((extent) => extent % 4 === 0),
      storage: { a: storageOf(first.a), b: storageOf(first.b), c: storageOf(target.tensor) },
      second: { kind: second.kind, a: storageOf(second.a), b: storageOf(second.b) },
    },
    bindings: {
      a: first.a.range,
      b: first.b.range,
      a2: second.a.range,
      b2: second.b.range,
      bias: options.bias?.range ?? absent,
      residual: options.residual?.range ?? absent,
      c: target.tensor.range,
    },
    params: {
      ...size,
      k2,
      scale: 1,
      has_bias: options.bias ? 1 : 0,
      has_residual: options.residual ? 1 : 0,
      accumulate: target.accumulate ? 1 : 0,
    },
    workgroups: [Math.ceil(size.n / tileCols(tile)), Math.ceil(size.m / tileRows(tile))],
  });
}

function sizeOf({ kind, a, b }: Factors): ProductSize {
  return { m: a.shape[0], k: a.shape[1], n: kind === "NT" ? b.shape[0] : b.shape[1] };
}

/** Few rows have a kernel of their own, and a small result of a long sum is summed in parts. */
function isOneKernel(
  { kind, a: { gpu } }: Factors,
  size: ProductSize,
  { bias, residual }: Pick<ProductEpilogue, "bias" | "residual">,
): boolean {
  if (kind === "NT" && size.m <= ROWS_KERNEL_LIMIT) return false;
  return bias !== undefined || residual !== undefined ||
    splitSteps(productPlan(gpu, kind, size), size) >= size.k;
}
