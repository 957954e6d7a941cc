/**
 * A pairwise loss that Keel does not have, from its equation to a trained model: max(0, 1 - beta (c - r))², the
 * truncated quadratic of Generalized Preference Optimization (arXiv 2402.05749).
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run examples/custom_loss.ts
 *
 * @module
 */
import { z } from "zod";
import * as keel from "../mod.ts";
import { letterRecords, letterTokenizer, TINY_LLAMA } from "./letters.ts";

/** c and r are the log-ratios of the chosen and the rejected answer; d_w and d_l the slopes by them. */
export const truncatedQuadratic = keel.definePairLoss({
  name: "truncated_quadratic",
  options: z.strictObject({ beta: z.number().positive().default(0.1) }),
  head: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
let short = max(0.0, 1.0 - beta * (c - r));
value = short * short;
d_w = -2.0 * beta * short;
d_l = 2.0 * beta * short;`,
  },
  initialLoss: () => 1,
});

/** Holds value and slopes against the equation in f64 and its central differences. */
export function checkLoss(gpu: keel.Gpu, beta: number): Promise<keel.GradientReport<"logps">> {
  const loss = truncatedQuadratic.resolve({ beta });
  return keel.checkPairLoss(gpu, loss, ({ c, r }) => Math.max(0, 1 - beta * (c - r)) ** 2);
}

/**
 * Trains with it.
 *
 * @param model trainable
 * @param onLog told of the loss and the other metrics
 * @returns the share of held-out pairs whose chosen answer gained more than the rejected one
 */
export async function trainWithLoss(
  model: keel.Model,
  onLog: (record: keel.MetricsRecord) => void,
): Promise<number> {
  const { training, heldOut } = letterRecords();
  const encoding = { tokenizer: letterTokenizer(), vocabSize: model.config.vocab_size, maxLength: 16 };
  const [{ pairs }, { pairs: others }] = [training, heldOut].map((records) =>
    keel.encodePairs(records, encoding)
  );
  const before = await keel.referenceLogps(model, others);
  using objective = keel.preferenceObjective(model, {
    pairs,
    reference: await keel.referenceLogps(model, pairs),
    loss: truncatedQuadratic.resolve({ beta: 0.1 }),
  });
  await keel.train(objective, {
    optimizer: keel.DEFAULT_OPTIMIZER,
    schedule: { kind: "constant", learningRate: 3e-3, warmupSteps: 0, maxSteps: 40 },
    ...{ batchSize: 32, seed: 0, logEvery: 10, onLog },
  });
  const after = await keel.referenceLogps(model, others);
  return keel.comparePreferences(others, { policy: after, reference: before }).reference!.rewardAccuracy
    .value;
}

if (import.meta.main) {
  await keel.ensureAdapter();
  using gpu = await keel.openGpu();
  const { output, gradients } = await checkLoss(gpu, 0.1);
  console.log(`largest error: value ${output.toExponential(1)}, slopes ${gradients.logps.toExponential(1)}`);
  const config = keel.parseModelConfig(TINY_LLAMA, { file: "letters.ts" });
  using model = keel.createModel(gpu, config, { trainable: true });
  keel.initializeModel(model, keel.createRandom(1));
  const accuracy = await trainWithLoss(
    model,
    ({ global_step, loss }) => console.log(`step ${global_step}: loss ${loss}`),
  );
  console.log(`held-out pairs whose chosen answer gained more: ${accuracy}`);
}
