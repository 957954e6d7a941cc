/**
 * LoRA on a local checkpoint with SPO around DPO: train, save the adapter, load it again, merge it.
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run examples/lora.ts [MODEL PAIRS.jsonl OUTPUT]
 *
 * MODEL is a Hugging Face folder, OUTPUT gets `adapter/` and `merged/`. Without arguments a tiny checkpoint and data for it
 * are made in a temporary folder first.
 *
 * @module
 */
import { join, resolve } from "node:path";
import * as keel from "../mod.ts";
import { letterRecords, letterTokenizer, TINY_LLAMA } from "./letters.ts";

/** Where everything is. */
export interface Places {
  /** A model's folder in Hugging Face's layout. */
  readonly model: string;
  /** Preferences, in any form that Keel reads. */
  readonly data: string;
  /** Gets the folders of the adapter and of the merged model. */
  readonly output: string;
}

/** Summed log-probs of the chosen answers, in nats. */
export interface Scores {
  /** Of the model before training. */
  readonly base: Float32Array;
  /** Of the model with its adapter, as training left it. */
  readonly trained: Float32Array;
  /** Of the base and the adapter, loaded from their folders. */
  readonly loaded: Float32Array;
  /** Of the merged model, loaded from its folder. */
  readonly merged: Float32Array;
}

/**
 * Trains an adapter, saves it and merges it.
 *
 * @param gpu the device
 * @param places where everything is
 * @param options.maxSteps of training
 * @param options.learningRate at its start
 * @param options.onLog told of the loss and the other metrics
 */
export async function trainAdapter(
  gpu: keel.Gpu,
  places: Places,
  options: { maxSteps: number; learningRate: number; onLog?: (record: keel.MetricsRecord) => void },
): Promise<Scores> {
  const { maxSteps, learningRate, onLog } = options;
  const base = resolve(places.model); // the adapter names it, wherever it is loaded from
  const [adapter, merged] = ["adapter", "merged"].map((name) => join(places.output, name));
  const { model: frozen, tokenizer } = await keel.loadModel(gpu, base, { trainable: false });
  using model = keel.addLora(frozen, { rank: 8, base });
  const { records } = await keel.readPreferences(places.data);
  const { pairs } = keel.encodePairs(records, {
    tokenizer,
    vocabSize: model.config.vocab_size,
    maxLength: 512,
  });
  const chosen = pairs.map((pair) => pair.chosen);
  const reference = await keel.referenceLogps(model, pairs); // a fresh adapter changes nothing
  using objective = keel.preferenceObjective(model, {
    pairs,
    reference,
    loss: keel.PAIR_LOSSES.dpo.resolve({ beta: 0.1 }),
    ...keel.spoStrategy(keel.parseSpoOptions({ solver: "penalty" }), { maxSteps, chosen }),
  });
  await keel.train(objective, {
    optimizer: keel.DEFAULT_OPTIMIZER,
    schedule: { kind: "cosine", learningRate, warmupSteps: 0, maxSteps },
    ...{ batchSize: Math.min(8, pairs.length), seed: 0, logEvery: 10, onLog },
  });
  await keel.saveAdapter(adapter, model, { tokenizer });
  await keel.mergeAdapter({ adapter, output: merged });
  return {
    base: reference.chosen,
    trained: await keel.completionLogps(model, chosen),
    loaded: await score(gpu, adapter, chosen),
    merged: await score(gpu, merged, chosen),
  };
}

/** Log-probs under what a folder holds, a model or an adapter. */
async function score(
  gpu: keel.Gpu,
  folder: string,
  completions: readonly keel.EncodedCompletion[],
): Promise<Float32Array> {
  const { model } = await keel.loadModelOrAdapter(gpu, folder, { trainable: false });
  using scored = model;
  return await keel.completionLogps(scored, completions);
}

/** Writes a checkpoint of random weights, large enough for an adapter to make something of them, and a file of pairs. */
export async function writeTinyPlaces(gpu: keel.Gpu, folder: string): Promise<Places> {
  const places = {
    model: join(folder, "model"),
    data: join(folder, "pairs.jsonl"),
    output: join(folder, "output"),
  };
  using model = keel.createModel(
    gpu,
    keel.parseModelConfig({ ...TINY_LLAMA, initializer_range: 0.3 }, { file: "letters.ts" }),
    {
      trainable: false,
    },
  );
  keel.initializeModel(model, keel.createRandom(1));
  await keel.saveModel(places.model, model, { tokenizer: letterTokenizer() });
  const lines = letterRecords().training.map(({ prompt, chosen, rejected }) =>
    JSON.stringify({ prompt, chosen, rejected })
  );
  await Deno.writeTextFile(places.data, lines.join("\n") + "\n");
  return places;
}

/** Largest difference of two lists of numbers. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

async function main(args: readonly string[]): Promise<void> {
  if (args.length !== 0 && args.length !== 3) {
    throw new keel.InputError(
      `Cannot train: expected MODEL PAIRS.jsonl OUTPUT, or nothing, found ${args.join(" ")}`,
    );
  }
  const [model, data, output] = args;
  await keel.ensureAdapter();
  using gpu = await keel.openGpu();
  const places = model ? { model, data, output } : await writeTinyPlaces(gpu, await Deno.makeTempDir());
  const { base, trained, loaded, merged } = await trainAdapter(gpu, places, {
    maxSteps: 40,
    learningRate: model ? 2e-4 : 1e-2,
    onLog: ({ global_step, loss, ...metrics }) =>
      console.log(`step ${global_step}: loss ${loss}, chosen answers ${metrics["logps/chosen"]}`),
  });
  const mean = (values: Float32Array) => values.reduce((total, value) => total + value, 0) / values.length;
  console.log(`chosen answers: ${mean(base)} before, ${mean(trained)} after`);
  console.log(`loaded again: largest difference ${largestDifference(loaded, trained)}`);
  console.log(`merged: largest difference ${largestDifference(merged, trained)}`);
  console.log(`${places.output}: adapter and merged`);
}

if (import.meta.main) {
  await main(Deno.args).catch((error) => {
    if (!(error instanceof keel.InputError)) throw error;
    console.error(error.message); // the user's files or flags: the message says all
    Deno.exit(1);
  });
}
