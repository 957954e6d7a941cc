/**
 * Trains a model from random weights by DPO with SPO around it, in thirty lines; Ctrl-C ends it after a step.
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run examples/train.ts
 *
 * @module
 */
import * as keel from "../mod.ts";
import { letterRecords, letterTokenizer, TINY_LLAMA } from "./letters.ts";

const stop = new AbortController();
Deno.addSignalListener("SIGINT", () => stop.abort());
await keel.ensureAdapter();
using gpu = await keel.openGpu();
const config = keel.parseModelConfig(TINY_LLAMA, { file: "letters.ts" });
using model = keel.createModel(gpu, config, { trainable: true });
keel.initializeModel(model, keel.createRandom(1));

const [records, encoding] = [letterRecords(), { tokenizer: letterTokenizer(), vocabSize: 11, maxLength: 16 }];
const { pairs } = keel.encodePairs(records.training, encoding);
const { pairs: heldOut } = keel.encodePairs(records.heldOut, encoding);
const compare = async () =>
  keel.comparePreferences(heldOut, { policy: await keel.referenceLogps(model, heldOut) });
console.log("held-out accuracy before:", (await compare()).accuracy.value);

const run = { maxSteps: 60, chosen: pairs.map(({ chosen }) => chosen) };
using objective = keel.preferenceObjective(model, {
  pairs,
  reference: await keel.referenceLogps(model, pairs),
  loss: keel.PAIR_LOSSES.dpo.resolve({ beta: 0.1 }),
  ...keel.spoStrategy(keel.parseSpoOptions({ solver: "penalty" }), run),
});
await keel.train(objective, {
  ...{ optimizer: keel.DEFAULT_OPTIMIZER, batchSize: 32, seed: 0, logEvery: 10, signal: stop.signal },
  schedule: { kind: "linear", learningRate: 1e-2, warmupSteps: 6, maxSteps: run.maxSteps },
  onLog: (record) =>
    console.log("step", record.global_step, "loss", record.loss, "margin", record["rewards/margins"]),
});
console.log("held-out accuracy after:", (await compare()).accuracy.value);
