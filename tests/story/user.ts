/**
 * What a user has and does: model folders, data, and commands as deno.json writes them.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import project from "../../deno.json" with { type: "json" };
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { architectureOf } from "../../train/models/registry.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { createRandom, fillNormal } from "../../train/random.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** How a command is run. */
export interface RunOptions {
  /** Typed into it; nothing by default. */
  readonly input?: string;
  /** Sends Ctrl-C as soon as either stream has shown this. */
  readonly stopAfter?: string;
  /** Variables besides the test's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Told the process's number when standard error has something; the input is typed when it is done. */
  readonly onStarted?: (pid: number) => Promise<void>;
}

/**
 * Runs a task of deno.json in its own process, without what it depends on: the adapter and the packages are there.
 *
 * @param task Its name.
 * @param args Its flags.
 * @param options What is typed, and when it is stopped.
 */
export async function runTask(
  task: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> {
  const tasks: Record<string, string | { command: string }> = project.tasks;
  const entry = tasks[task];
  assert.ok(entry !== undefined, `deno.json has no task ${task}`);
  const [program, ...words] = (typeof entry === "string" ? entry : entry.command).split(" ");
  assert.equal(program, "deno");
  const child = new Deno.Command(Deno.execPath(), {
    args: [...words, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...options.env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  const { promise: isHeard, resolve: hear } = Promise.withResolvers<void>();
  const type = async () => {
    if (options.onStarted) await isHeard.then(() => options.onStarted!(child.pid));
    await writer.write(new TextEncoder().encode(options.input ?? ""));
    await writer.close();
  };
  // A program that refuses its flags is gone before it reads.
  const typed = type().catch((error) => assert.ok(error instanceof Deno.errors.BrokenPipe, String(error)));
  let isStopped = options.stopAfter === undefined;
  const collect = async (stream: ReadableStream<Uint8Array>): Promise<string> => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const part of stream) {
      if (stream === child.stderr) hear();
      text += decoder.decode(part, { stream: true });
      if (isStopped || !text.includes(options.stopAfter!)) continue;
      isStopped = true;
      child.kill("SIGINT");
    }
    return text;
  };
  const [out, error, { code }] = await Promise.all([
    collect(child.stdout),
    collect(child.stderr),
    child.status,
    typed,
  ]);
  return { code, out, error };
}

/** The same, which must succeed; returns what it printed. */
export async function succeed(task: string, args: readonly string[], options?: RunOptions): Promise<string> {
  const { code, out, error } = await runTask(task, args, options);
  assert.equal(code, 0, `${task} ${args.join(" ")}:\n${error}\n${out}`);
  return out;
}

const TINY_LLAMA = {
  model_type: "llama",
  ...{ vocab_size: 16, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4 },
  ...{ num_key_value_heads: 2, max_position_embeddings: 64, initializer_range: 0.2 },
};

/** Keys of config.json of tiny models, by architecture: biased and not, gated and not, tied and not, both layouts. */
export const TINY_CONFIGS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  llama: TINY_LLAMA,
  qwen2: { ...TINY_LLAMA, model_type: "qwen2", tie_word_embeddings: true },
  gpt2: {
    model_type: "gpt2",
    ...{ vocab_size: 16, n_positions: 64, n_embd: 32, n_layer: 2, n_head: 4, initializer_range: 0.2 },
    ...{ bos_token_id: 14, eos_token_id: 14 },
  },
};

/**
 * Writes a model folder as it comes from Hugging Face, with random weights, without a device.
 *
 * @param folder Made here.
 * @param options.architecture Of {@link TINY_CONFIGS}, llama by default.
 * @param options.config Keys of config.json that differ.
 * @param options.scale Standard deviation of all weights but norms, 0 for a model that knows nothing.
 */
export async function writeCheckpoint(
  folder: string,
  options: { architecture?: string; config?: Readonly<Record<string, unknown>>; scale?: number } = {},
): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const json = { ...TINY_CONFIGS[options.architecture ?? "llama"], ...options.config };
  const { shapes, initial } = architectureOf(parseModelConfig(json, { file: "test" }));
  const random = createRandom(1);
  const tensors = [...shapes].map(([name, shape]) => ({
    name,
    shape,
    data() {
      const target = new Float32Array(shape.reduce((a, b) => a * b, 1));
      const fresh = initial(name, shape);
      const { scale } = options;
      if ("value" in fresh) return target.fill(fresh.value);
      return scale === 0 ? target : fillNormal(random, { target, std: scale ?? fresh.std });
    },
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { dtype: "f32" });
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(json));
  for (const [name, bytes] of characterTokenizerFiles("0123456789+-:,$", { eos: "$" })) {
    await Deno.writeFile(join(folder, name), bytes);
  }
  await writeChatTemplate(folder);
}

/**
 * Copies a model folder and gives it a chat template that joins the messages, where it has none of its own.
 *
 * @param from The folder.
 * @param to Made here.
 */
export async function copyCheckpoint(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isFile } of Deno.readDir(from)) {
    if (isFile) await Deno.writeFile(join(to, name), await Deno.readFile(join(from, name)));
  }
  await writeChatTemplate(to);
}

async function writeChatTemplate(folder: string): Promise<void> {
  const template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}";
  await Deno.writeTextFile(join(folder, "chat_template.jinja"), template);
}

/** Writes records as lines. */
export async function writeLines(path: string, records: readonly unknown[]): Promise<string> {
  await Deno.writeTextFile(path, records.map((record) => JSON.stringify(record) + "\n").join(""));
  return path;
}

/** Preferences that the tiny models can learn: the next digit over 0. */
export const DIGIT_PAIRS = Array.from({ length: 8 }, (_, digit) => ({
  prompt: `${digit}+1:`,
  chosen: `${digit + 1}$`,
  rejected: "0$",
}));
