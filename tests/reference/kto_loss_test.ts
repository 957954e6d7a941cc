import assert from "node:assert/strict";
import { assertBackward } from "./central_difference.ts";
import * as kto from "./kto_loss.ts";
import { normals, seededRandom } from "./random.ts";

function made(N: number, hasKl: boolean): kto.KtoInputs {
  const random = seededRandom(N);
  const drawn = () => normals(random, { length: N }).map((value) => 8 * value - 30);
  const [s, ref, policy] = [drawn(), drawn(), drawn()];
  const reference = policy.map((value) => value - 3);
  return {
    s,
    ref,
    desirable: Array.from(s, (_, i) => i % 3 !== 1),
    ...(hasKl ? { kl: { policy, reference } } : {}),
  };
}

const DIMS = { beta: 0.1, desirableWeight: 1.2, undesirableWeight: 0.7 };

for (const hasKl of [true, false]) {
  Deno.test(`kto_loss ${hasKl ? "with" : "without"} KL: the derivative is that of the loss`, () => {
    for (const N of [2, 17]) {
      assertBackward(kto, { inputs: made(N, hasKl), dims: DIMS, outputs: ["loss"], seed: 1 });
    }
  });
}

Deno.test("kto_loss: where policy equals reference the loss is half the weights' mean", () => {
  const { s, desirable } = made(6, false);
  const { loss, metrics } = kto.forward({ s, ref: s, desirable, kl: { policy: s, reference: s } }, DIMS);
  assert.ok(Math.abs(loss - (4 * 1.2 + 2 * 0.7) / 12) < 1e-12);
  assert.equal(metrics.kl, 0);
});
