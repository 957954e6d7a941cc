/**
 * Matrix products and their gradients.
 * @module
 */
import { matmulForward } from "../../shaders/matmul.ts";
import { type ProductKind, type Tile, tileCols, tileRows } from "../../shaders/tile.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { emptyLike, type Tensor } from "../tensor.ts";
import { type GradientTarget, record } from "../tape.ts";
import { productTile } from "./dispatch.ts";

/**
 * C = op(A) op(B).
 *
 * @param a `[M, K]`, or `[K, M]` for TN
 * @param b `[K, N]`, or `[N, K]` for NT
 * @param options.kind NN (default), NT (a linear layer with HF's `[out, in]` weight) or TN
 * @returns `[M, N]`
 * @throws {ShapeError} when the inner extents differ or an operand is not a matrix
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
 * ```
 */
export function matmul(a: Tensor, b: Tensor, options: { kind?: ProductKind } = {}): Tensor {
  const kind = options.kind ?? "NN";
  const { m, n } = productSize(kind, a, b);
  const c = emptyLike(kind === "TN" ? { ...a, capacity: m } : a, [m, n]);
  multiply(kind, a, b, { tensor: c, accumulate: false });
  return record(a.gpu, {
    name: `matmul ${kind}`,
    inputs: [a, b],
    output: c,
    isOutputFree: true,
    backward: (dC, sink) => {
      const dA = sink.into(a);
      const dB = sink.into(b);
      switch (kind) {
        case "NN": // C = A B: dA = dC B^T, dB = A^T dC
          if (dA) multiply("NT", dC, b, dA);
          if (dB) multiply("TN", a, dC, dB);
          break;
        case "NT": // C = A B^T: dA = dC B, dB = dC^T A
          if (dA) multiply("NN", dC, b, dA);
          if (dB) multiply("TN", dC, a, dB);
          break;
        case "TN": // C = A^T B: dA = B dC^T, dB = A dC
          if (dA) multiply("NT", b, dC, dA);
          if (dB) multiply("NN", a, dC, dB);
          break;
      }
    },
  });
}

/**
 * Writes or adds op(A) op(B) to a target, without recording.
 *
 * @param kind which operand is stored transposed
 * @param a left operand
 * @param b right operand
 * @param target `[M, N]` and whether to add to it
 */
export function multiply(kind: ProductKind, a: Tensor, b: Tensor, target: GradientTarget, tile?: Tile): void {
  const { m, n, k } = productSize(kind, a, b);
  expectShape(`matmul ${kind}`, "the result", target.tensor.shape, [m, n]);
  const { gpu } = a;
  const constants = { kind, tile: tile ?? productTile(gpu), vector: isVector(kind, { m, n, k }) };
  gpu.dispatch(matmulForward, {
    constants,
    bindings: { a: a.range, b: b.range, c: target.tensor.range },
    params: { m, n, k, accumulate: target.accumulate ? 1 : 0 },
    workgroups: [Math.ceil(n / tileCols(constants.tile)), Math.ceil(m / tileRows(constants.tile))],
  });
}

interface ProductSize {
  readonly m: number;
  readonly n: number;
  readonly k: number;
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
