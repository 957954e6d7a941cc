/**
 * Commands in processes of their own that are sent signals, under a deadline.
 *
 * @module
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { LAUNCHER } from "../launcher.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  /** Standard output and standard error. */
  readonly text: string;
  /** From the first signal to the end; 0 without one. */
  readonly reactionMs: number;
}

/** What a command is sent, and when. */
export interface SignalPlan {
  /** The first one is sent as soon as either stream has shown this. */
  readonly after: RegExp;
  /** In order. */
  readonly signals: readonly Deno.Signal[];
  /** Between two of them; 100 by default. */
  readonly pauseMs?: number;
}

/**
 * Runs the command line.
 *
 * @param args Its words and flags.
 * @param options.signals What it is sent.
 * @param options.deadlineMs After which the test fails and the process is killed; two minutes by default.
 */
export async function keel(
  args: readonly string[],
  options: { signals?: SignalPlan; deadlineMs?: number } = {},
): Promise<Outcome> {
  const { signals: plan, deadlineMs = 120_000 } = options;
  const child = spawn(args);
  let [text, sentAt, isOver] = ["", 0, false];
  const send = async ({ signals, pauseMs = 100 }: SignalPlan) => {
    sentAt = performance.now();
    for (const [index, signal] of signals.entries()) {
      if (index > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (!isOver) child.kill(signal);
    }
  };
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const part of stream) {
      text += decoder.decode(part, { stream: true });
      if (plan && sentAt === 0 && plan.after.test(text)) await send(plan);
    }
  };
  const timer = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
  const [{ code }] = await Promise.all([
    child.status.then((status) => {
      isOver = true;
      return status;
    }),
    collect(child.stdout),
    collect(child.stderr),
  ]);
  clearTimeout(timer);
  assert.notEqual(code, 137, `expected an end within ${deadlineMs} ms:\n${text}`);
  if (plan) assert.notEqual(sentAt, 0, `expected ${plan.after}, found:\n${text}`);
  return { code, text, reactionMs: sentAt === 0 ? 0 : performance.now() - sentAt };
}

function spawn(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/**
 * Runs the command line while something else is done, then kills it as a power cut would.
 *
 * @param args Its words and flags; the command must not end by itself before.
 * @param options.after What is done begins as soon as either stream has shown this.
 * @param options.meanwhile What is done.
 */
export async function whileKeelRuns(
  args: readonly string[],
  { after, meanwhile }: { after: RegExp; meanwhile: () => Promise<void> },
): Promise<void> {
  const child = spawn(args);
  const [shown, ended] = [Promise.withResolvers<void>(), child.status];
  let text = "";
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    for await (const part of stream.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (after.test(text)) shown.resolve();
    }
  };
  const streams = Promise.all([collect(child.stdout), collect(child.stderr)]);
  let isOver = false;
  try {
    await Promise.race([shown.promise, ended.then(() => void (isOver = true))]);
    assert.ok(!isOver, `expected ${after}, found:\n${text}`);
    await meanwhile();
  } finally {
    if (!isOver) child.kill("SIGKILL");
    await Promise.all([ended, streams]);
  }
}

/** Names of all files below a folder that does or does not exist. */
export async function filesBelow(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory) names.push(...(await filesBelow(`${folder}/${name}`)).map((one) => `${name}/${one}`));
      else names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}
