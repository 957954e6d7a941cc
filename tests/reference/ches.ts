/**
 * CHES scores in plain f64 (arXiv 2410.08847, Definition 2).
 *
 * @module
 */

/**
 * Scores of pairs.
 *
 * @param hidden `[R, C]`, row-major.
 * @param options.columns C.
 * @param options.lengths `[2P]`: rows of each completion, the chosen of all pairs first.
 * @returns `[P]` each: `<S_w, S_l> - |S_w|^2`, and the same of means instead of sums.
 */
export function chesScores(
  hidden: Float64Array,
  { columns, lengths }: { columns: number; lengths: readonly number[] },
): { scores: number[]; normalized: number[] } {
  let row = 0;
  const sums = lengths.map((length) => {
    const total = new Array<number>(columns).fill(0);
    for (const end = row + length; row < end; row++) {
      for (let c = 0; c < columns; c++) total[c] += hidden[row * columns + c];
    }
    return total;
  });
  const dot = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, value, c) => sum + value * b[c], 0);
  const pairs = lengths.length / 2;
  const score = (of: readonly number[][]) =>
    Array.from({ length: pairs }, (_, p) => dot(of[p], of[pairs + p]) - dot(of[p], of[p]));
  return {
    scores: score(sums),
    normalized: score(sums.map((sum, s) => sum.map((value) => value / lengths[s]))),
  };
}
