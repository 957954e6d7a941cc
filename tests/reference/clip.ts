/**
 * Clipping of gradients by their global norm in plain f64, as torch.nn.utils.clip_grad_norm_ does it. Algorithm 1, arXiv
 * 1211.5063.
 *
 * @module
 */

/**
 * Scales all gradients by one coefficient, min(1, maxNorm / (norm + 1e-6)).
 *
 * @param inputs.gradients Gradients of all parameters; they stay as they are.
 * @param dims.maxNorm Largest norm to leave as it is.
 * @returns norm before clipping over all gradients together, the coefficient, and the scaled gradients.
 */
export function forward(
  { gradients }: { gradients: Float64Array[] },
  { maxNorm }: { maxNorm: number },
): { norm: number; coefficient: number; gradients: Float64Array[] } {
  let sumSquares = 0;
  for (const gradient of gradients) {
    for (const value of gradient) sumSquares += value ** 2;
  }
  const norm = Math.sqrt(sumSquares);
  const coefficient = Math.min(1, maxNorm / (norm + 1e-6));
  return {
    norm,
    coefficient,
    gradients: gradients.map((gradient) => gradient.map((value) => value * coefficient)),
  };
}
