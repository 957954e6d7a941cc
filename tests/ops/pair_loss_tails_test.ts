import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { gpuTest } from "../gpu.ts";
import * as reference from "../reference/pair_loss.ts";
import { BATCH_KINDS, SINGLE_KINDS } from "../reference/pair_loss_cases.ts";
import { assertClose } from "./check_op.ts";
import { pairLossOptions } from "./pair_loss_options.ts";
import { runSteps } from "./pair_loss_steps.ts";

/** The smallest normal f32: below it 0 is right. */
const SMALLEST = 2 ** -126;

/** Relative to each number alone: WGSL's exp may be off by 3 + 2 |x| steps of 6e-8, 1e-5 at 80. */
function assertTail(found: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  Array.from(expected).forEach((value, i) => {
    const isTiny = Math.abs(value) < SMALLEST && Math.abs(found[i]) <= SMALLEST;
    if (!isTiny) assertClose([found[i]], [value], { what: `${what} ${i}`, atol: 0, rtol: 2e-5 });
  });
}

/** One pair of one-token answers with s_w - s_l = D = z; either the winner's side has moved or the loser's. */
function pairAt(z: number, moved: "chosen" | "rejected"): reference.PairLossInputs {
  const size = Math.abs(z);
  const [up, down] = [-5, -5 - size];
  const [won, lost] = z > 0 ? [up, down] : [down, up];
  const ref = moved === "chosen" ? lost : won;
  return { s: Float64Array.of(won, lost), ref: Float64Array.of(ref, ref), lengths: [1, 1] };
}

for (const [name, kind] of Object.entries({ ...SINGLE_KINDS, ...BATCH_KINDS })) {
  gpuTest(`pair_loss ${name}: right at |beta D| = 80, finite and right at 1e4`, async (gpu) => {
    // Each pair is a batch of its own: a sum would hide the small side.
    const settled: reference.TermKind = { ...kind, ...("beta" in kind ? { beta: 1 } : {}) };
    for (const z of [80, -80, 1e4, -1e4]) {
      for (const moved of ["chosen", "rejected"] as const) {
        const inputs = pairAt(z, moved);
        const { found: [found] } = await runSteps(gpu, [inputs], {
          pairOptions: pairLossOptions(settled),
          spo: NO_PENALTY,
        });
        const dims = { ...settled, P: 1, normalizer: 1 };
        const expected = reference.forward(inputs, dims).loss;
        const { dS } = reference.backward(inputs, dims, { dLoss: 1 });
        const what = (number: string) => `z ${z}, ${moved} moved: ${number}`;
        assert.ok([expected, ...dS].every(Number.isFinite), what("the reference is finite"));
        assertTail([found.loss], [expected], what("loss"));
        assertTail(found.dLogps, dS, what("d logps"));
      }
    }
  });
}

gpuTest(
  "pair_loss orpo: right where an answer is nearly certain, finite where it is certain",
  async (gpu) => {
    const kind = { loss: "orpo", beta: 0.5 } as const;
    for (
      const [won, lost] of [[-1e-4, -2], [-2, -1e-4], [-1e-6, -1e-5], [-0.7, -0.69], [0, -1], [-1, 0], [0, 0]]
    ) {
      const inputs = {
        s: Float64Array.of(2 * won, 3 * lost).map(Math.fround),
        ref: new Float64Array(2),
        lengths: [2, 3],
      };
      const { found: [found] } = await runSteps(gpu, [inputs], {
        pairOptions: pairLossOptions(kind),
        spo: NO_PENALTY,
      });
      const dims = { ...kind, P: 1, normalizer: 1 };
      const what = `${won}, ${lost}`;
      assertClose([found.loss], [reference.forward(inputs, dims).loss], { what, rtol: 2e-5, atol: 1e-7 });
      assertClose(found.dLogps, reference.backward(inputs, dims, { dLoss: 1 }).dS, {
        ...{ what: `${what}: d logps`, rtol: 2e-5, atol: 1e-7 },
      });
    }
  },
);
