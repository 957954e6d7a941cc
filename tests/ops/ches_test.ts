import assert from "node:assert/strict";
import { chesScores, reportChes } from "../../engine/ops/ches.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, scope, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";
import * as reference from "../reference/ches.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

const offsetsOf = (lengths: readonly number[]) =>
  Uint32Array.from([0, ...lengths.map((_, s) => lengths.slice(0, s + 1).reduce((a, b) => a + b, 0))]);

for (const [columns, lengths] of [[1, [1, 1]], [16, [3, 1, 2, 5]], [100, [7, 2, 1, 4, 3, 9]]] as const) {
  gpuTest(`ches_scores of ${lengths.length / 2} pairs, ${columns} columns`, async (gpu) => {
    const rows = lengths.reduce<number>((total, length) => total + length, 0);
    const values = Float32Array.from(normals(seededRandom(columns), { length: rows * columns }));
    const expected = reference.chesScores(Float64Array.from(values), { columns, lengths });
    const metrics = fromHost(gpu, Float32Array.of(5, 5, 5), { shape: [3] });
    const results = scope(gpu, () => {
      // Padding rows come after those of the completions.
      const padded = Float32Array.from([...values, ...new Array(2 * columns).fill(NaN)]);
      const hidden = upload(gpu, padded, { shape: [rows + 2, columns] });
      const offsets = upload(gpu, offsetsOf(lengths));
      const slot = (index: number, accumulate: boolean) => ({ metrics, index, accumulate });
      reportChes(hidden, {
        ...{ offsets, inversePairs: 2 / lengths.length },
        metrics: [slot(0, false), slot(2, true)],
      });
      const { scores, normalized } = chesScores(hidden, offsets);
      return [scores, normalized];
    });
    const [scores, normalized, reported] = await readAll(gpu, [...results, metrics]);
    assertClose(scores, expected.scores, { what: "scores", atol: 1e-4 });
    assertClose(normalized, expected.normalized, { what: "normalized", atol: 1e-4 });
    const mean = (of: readonly number[]) => of.reduce((a, b) => a + b, 0) / of.length;
    const means = [mean(expected.scores), 5, 5 + mean(expected.normalized)];
    assertClose(reported, means, { what: "reported means", atol: 1e-4 });
    for (const tensor of [...results, metrics]) release(tensor);
  });
}

gpuTest("ches_scores refuses completions that are not pairs", (gpu) => {
  const hidden = upload(gpu, new Float32Array(8), { shape: [4, 2] });
  assert.throws(() => chesScores(hidden, upload(gpu, offsetsOf([1, 1, 1]))), ShapeError);
});
