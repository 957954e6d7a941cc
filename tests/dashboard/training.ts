/**
 * Tiny training runs in processes of their own, with a dashboard.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { LAUNCHER } from "../launcher.ts";
import { DIGIT_PAIRS, writeCheckpoint, writeLines } from "../story/user.ts";

/** A folder with a model and data, removed afterwards. */
export async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "keel-dashboard-" });
  try {
    await writeCheckpoint(join(folder, "model"));
    await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A run under way. */
export interface Training extends AsyncDisposable {
  /** The dashboard's address; rejects where the run ends without telling one. */
  readonly url: Promise<string>;
  /** How it ended. */
  readonly end: Promise<{ code: number; out: string; error: string }>;
  /** Sends Ctrl-C. */
  stop(): void;
}

/** Starts `train` with the folder's model and data, as its task does. */
export function startTraining(folder: string, flags: readonly string[]): Training {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...[...LAUNCHER, "train", "--model", join(folder, "model"), "--data", join(folder, "pairs.jsonl")],
      ...["--batch-size", "4", "--log-every", "1", "--save-minutes", "0", ...flags],
    ],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const address = Promise.withResolvers<string>();
  // Where no one waits for the address, the run's end says what is wrong.
  address.promise.catch(() => {});
  const collect = async () => {
    let out = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      out += part;
      const url = /^Dashboard: (\S+)$/m.exec(out)?.[1];
      if (url !== undefined) address.resolve(url);
    }
    address.reject(new Error(`Cannot look at the dashboard: expected its address, found ${out}`));
    return out;
  };
  const end = Promise.all([child.status, collect(), new Response(child.stderr).text()])
    .then(([{ code }, out, error]) => ({ code, out, error }));
  return {
    url: address.promise,
    end,
    stop: () => child.kill("SIGINT"),
    async [Symbol.asyncDispose]() {
      try {
        child.kill("SIGKILL");
      } catch (error) {
        // It has ended by itself.
        assert.ok(error instanceof TypeError || error instanceof Deno.errors.NotFound, String(error));
      }
      await end;
    },
  };
}

/** The records of a run's metrics.jsonl, without what differs from run to run. */
export async function readMetrics(folder: string): Promise<Record<string, unknown>[]> {
  const text = await Deno.readTextFile(join(folder, "metrics.jsonl"));
  return text.trimEnd().split("\n").map((line) => {
    const { tokens_per_second: _, ...record } = JSON.parse(line);
    return record;
  });
}
