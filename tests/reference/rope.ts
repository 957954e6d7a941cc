/**
 * Rotary position embedding in plain f64, in the rotate-half layout of Hugging Face's Llama: dimension i is paired with
 * i + D/2. Section 3.4, arXiv 2104.09864.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of a rotary embedding. */
export interface RopeInputs {
  /** `[N, H * D]` queries or keys. */
  x: Float64Array;
  /** `[N]` position of each row in its sequence. */
  positions: ArrayLike<number>;
}

/** Sizes of a rotary embedding. */
export interface RopeDims {
  /** Rows. */
  N: number;
  /** Heads. */
  H: number;
  /** Head size, even. */
  D: number;
  /** Base of the wavelengths. */
  theta: number;
  /** How many heads are rotated, from the first; all by default. */
  rotated?: number;
}

/**
 * Rotates each pair (x[i], x[i + D/2]) of the rotated heads by the angle position * theta^(-2i/D).
 *
 * @param inputs Rows and positions.
 * @param dims Sizes and base.
 * @returns y `[N, H * D]`.
 * @throws {RangeError} When a length disagrees with the dimensions or D is odd.
 */
export function forward({ x, positions }: RopeInputs, dims: RopeDims): { y: Float64Array } {
  return { y: rotate(x, positions, { ...dims, direction: 1 }) };
}

/**
 * y = R x with R a rotation, so dX = R^T dY: the rotation by the negative angle.
 *
 * @param inputs Rows and positions.
 * @param dims Sizes and base.
 * @param upstream dY `[N, H * D]`.
 * @returns dX `[N, H * D]`.
 * @throws {RangeError} When a length disagrees with the dimensions or D is odd.
 */
export function backward(
  { positions }: RopeInputs,
  dims: RopeDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array } {
  return { dX: rotate(dY, positions, { ...dims, direction: -1 }) };
}

function rotate(
  x: Float64Array,
  positions: ArrayLike<number>,
  { N, H, D, theta, direction, rotated = H }: RopeDims & { direction: 1 | -1 },
): Float64Array {
  requireLengths("rope", { x: [x, N * H * D], positions: [positions, N] });
  if (D % 2 !== 0) throw new RangeError(`Cannot rotate heads: expected an even head size, found ${D}`);
  const half = D / 2;
  const y = x.slice();
  for (let n = 0; n < N; n++) {
    for (let h = 0; h < rotated; h++) {
      for (let i = 0; i < half; i++) {
        const angle = direction * positions[n] * theta ** (-2 * i / D);
        const first = (n * H + h) * D + i;
        const second = first + half;
        y[first] = x[first] * Math.cos(angle) - x[second] * Math.sin(angle);
        y[second] = x[second] * Math.cos(angle) + x[first] * Math.sin(angle);
      }
    }
  }
  return y;
}
