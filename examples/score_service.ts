/**
 * An HTTP service that says which of two answers a model finds likelier, for one pair or several at a time.
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run --allow-net=127.0.0.1 examples/score_service.ts [MODEL] [--port 8000]
 *     curl -H 'content-type: application/json' -d '{"prompt":"fad:","chosen":"adf","rejected":"fda"}' http://127.0.0.1:8000/score
 *
 * MODEL is a folder of a model or an adapter; without it a tiny model is trained first. `GET /health` says how it is.
 * Ctrl-C or SIGTERM: requests that came are answered, then the service ends.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { z } from "zod";
import * as keel from "../mod.ts";
import { letterRecords, letterTokenizer, TINY_LLAMA } from "./letters.ts";

const MAX_BODY_BYTES = 64 * 1024;
const MAX_PAIRS = 64;
/** Of prompt and answer together. */
const MAX_TOKENS = 2048;
/** Requests that are being answered at a time; others are told to come again. */
const MAX_OPEN = 32;

const Pair = z.strictObject({
  prompt: z.string().min(1),
  chosen: z.string().min(1),
  rejected: z.string().min(1),
});
const Pairs = z.array(Pair).min(1).max(MAX_PAIRS);

/** An answer's log-probs are summed over its tokens, in nats. */
export interface Score {
  readonly logps: { readonly chosen: number; readonly rejected: number };
  /** logps.chosen - logps.rejected */
  readonly margin: number;
  readonly preferred: "chosen" | "rejected" | "neither";
}

/** A request that gets another answer than 200. */
class HttpError extends Error {
  constructor(readonly status: number, message: string, readonly headers: Record<string, string> = {}) {
    super(`Cannot answer: ${message}`);
  }
}

/** Scores pairs in one pass; an answer too long for the model is refused, not cut. */
async function scorePairs(
  { model, tokenizer }: keel.LoadedModel,
  pairs: z.infer<typeof Pairs>,
): Promise<Score[]> {
  const maxLength = Math.min(model.positions, MAX_TOKENS);
  const texts = (side: "chosen" | "rejected") =>
    pairs.map((pair, index) => ({
      prompt: pair.prompt,
      completion: pair[side],
      source: { file: `${side} of pair`, index },
    }));
  const examples = [...texts("chosen"), ...texts("rejected")];
  const options = { tokenizer, vocabSize: model.config.vocab_size, maxLength };
  const { completions, counts } = keel.encodeCompletions(examples, options);
  if (counts.truncated + counts.truncatedPrompt + counts.droppedEmpty > 0) {
    throw new HttpError(400, `expected answers of 1 to ${maxLength} tokens with their prompts, found others`);
  }
  const logps = await keel.completionLogps(model, completions);
  return pairs.map((_, index) => {
    const [chosen, rejected] = [logps[index], logps[pairs.length + index]];
    const margin = chosen - rejected;
    return {
      logps: { chosen, rejected },
      margin,
      preferred: margin > 0 ? "chosen" : margin < 0 ? "rejected" : "neither",
    };
  });
}

/** Requests that came and are not answered yet. One at a time has the device. */
class OpenRequests {
  #count = 0;
  #device: Promise<unknown> = Promise.resolve();
  #drained: PromiseWithResolvers<void> | undefined;

  get count(): number {
    return this.#count;
  }

  get isStopping(): boolean {
    return this.#drained !== undefined;
  }

  /** Answers one request from its arrival on. */
  async answer<Result>(body: () => Promise<Result>): Promise<Result> {
    if (this.isStopping) throw new HttpError(503, "the service is stopping");
    if (this.#count >= MAX_OPEN) {
      throw new HttpError(503, `expected at most ${MAX_OPEN} requests at a time`, { "retry-after": "1" });
    }
    this.#count++;
    try {
      return await body();
    } finally {
      this.#count--;
      if (this.#count === 0) this.#drained?.resolve();
    }
  }

  /** Runs a task when those before it are done. */
  onDevice<Result>(task: () => Promise<Result>): Promise<Result> {
    const turn = this.#device.then(task);
    this.#device = turn.catch(() => {}); // whoever asked is told
    return turn;
  }

  /** Takes no more requests; resolves when the last one is answered. */
  drain(): Promise<void> {
    this.#drained ??= Promise.withResolvers();
    if (this.#count === 0) this.#drained.resolve();
    return this.#drained.promise;
  }
}

async function readJson(request: Request): Promise<unknown> {
  const type = request.headers.get("content-type")?.split(";")[0].trim();
  if (type !== "application/json") {
    throw new HttpError(415, `expected content-type application/json, found ${type ?? "none"}`);
  }
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of request.body ?? []) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) {
      throw new HttpError(413, `expected at most ${MAX_BODY_BYTES} bytes, found more`);
    }
    parts.push(part);
  }
  try {
    return JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(await new Blob(parts as BlobPart[]).arrayBuffer()),
    );
  } catch (cause) {
    throw new HttpError(400, `expected JSON in UTF-8: ${(cause as Error).message}`);
  }
}

/** What is wrong, by its place: `1.chosen: Invalid input: expected string, received number`. */
function describe({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => [...(path.length ? [path.join(".")] : []), message].join(": "))
    .join("; ");
}

/** What `Deno.serve` takes, and how it ends. */
export interface ScoreService {
  readonly handler: (request: Request) => Promise<Response>;
  /** Takes no more requests; resolves when the last one is answered. */
  readonly drain: () => Promise<void>;
}

/**
 * Makes the service.
 *
 * @param loaded the model that scores
 */
export function scoreService(loaded: keel.LoadedModel): ScoreService {
  const requests = new OpenRequests();
  const { gpu, config } = loaded.model;
  const health = () => {
    gpu.check();
    if (requests.isStopping) throw new HttpError(503, "the service is stopping");
    return {
      status: "ok",
      model: config.model_type,
      adapter: gpu.adapter.name,
      openRequests: requests.count,
    };
  };
  const score = async (request: Request) => {
    const body = await readJson(request);
    const isList = Array.isArray(body);
    const pairs = Pairs.safeParse(isList ? body : [body]);
    if (!pairs.success) {
      const issues = pairs.error.issues.map((issue) =>
        isList ? issue : { ...issue, path: issue.path.slice(1) }
      );
      throw new HttpError(400, describe(new z.ZodError(issues)));
    }
    const scores = await requests.onDevice(() => scorePairs(loaded, pairs.data));
    return isList ? scores : scores[0];
  };
  const routes: Record<string, { method: string; answer: (request: Request) => unknown }> = {
    "/health": { method: "GET", answer: health },
    "/score": { method: "POST", answer: (request) => requests.answer(() => score(request)) },
  };
  const handler = async (request: Request) => {
    try {
      const route = routes[new URL(request.url).pathname];
      if (!route) throw new HttpError(404, `expected ${Object.keys(routes).join(" or ")}`);
      if (request.method !== route.method) {
        throw new HttpError(405, `expected ${route.method}, found ${request.method}`, {
          allow: route.method,
        });
      }
      return Response.json(await route.answer(request));
    } catch (error) {
      const { status, message, headers } = asHttpError(error);
      return Response.json({ error: message }, { status, headers });
    }
  };
  return { handler, drain: () => requests.drain() };
}

function asHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof keel.DataError) return new HttpError(400, error.message.replace("Cannot encode ", ""));
  console.error(error);
  // The device does not come back: whoever watches /health starts the service anew.
  if (error instanceof keel.GpuFaultError) return new HttpError(503, "the device is lost");
  return new HttpError(500, "an error of the service");
}

/** A model that has learnt a little: supervised fine-tuning on the preferred answers. */
async function trainTinyModel(gpu: keel.Gpu): Promise<keel.LoadedModel> {
  const tokenizer = letterTokenizer();
  const model = keel.createModel(gpu, keel.parseModelConfig(TINY_LLAMA, { file: "letters.ts" }), {
    trainable: true,
  });
  keel.initializeModel(model, keel.createRandom(1));
  const examples = letterRecords().training.map(({ prompt, chosen, source }) => ({
    prompt,
    completion: chosen,
    source,
  }));
  const { completions } = keel.encodeCompletions(examples, {
    tokenizer,
    vocabSize: model.config.vocab_size,
    maxLength: 16,
  });
  using objective = keel.sftObjective(model, completions);
  await keel.train(objective, {
    optimizer: keel.DEFAULT_OPTIMIZER,
    schedule: { kind: "linear", learningRate: 1e-2, warmupSteps: 0, maxSteps: 40 },
    ...{ batchSize: 32, seed: 0, logEvery: 40 },
  });
  return { model, tokenizer };
}

async function main(): Promise<void> {
  const { values, positionals: [folder] } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: { port: { type: "string", default: "8000" } },
  });
  await keel.ensureAdapter();
  using gpu = await keel.openGpu();
  const loaded = folder
    ? await keel.loadModelOrAdapter(gpu, folder, { trainable: false })
    : await trainTinyModel(gpu);
  using _model = loaded.model;
  const service = scoreService(loaded);
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port: Number(values.port),
    onListen: ({ port }) => console.log(`Listening on http://127.0.0.1:${port}`),
  }, service.handler);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  const stop = async () => {
    for (const signal of signals) Deno.removeSignalListener(signal, stop); // a second one ends it at once
    await service.drain(); // first: a shutdown breaks off the bodies that are still coming
    await server.shutdown();
  };
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  await server.finished;
  console.log("Stopped");
}

if (import.meta.main) await main();
