/**
 * Kills a run again and again, lets it resume each time, and holds its end against that of a run that was left alone.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { LAUNCHER } from "../launcher.ts";
import { seededRandom } from "../reference/random.ts";
import { DIGIT_PAIRS, writeCheckpoint, writeLines } from "../story/user.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** What a process says of itself, not of the run. */
const OF_THE_PROCESS = ["tokens_per_second", "gpu_memory_bytes"];

/** How often one is looked whether a checkpoint is being written. */
const LOOK_MS = 2;

/** A kill aimed at a save comes within this time of its beginning. */
const SAVE_MS = 40;

/** What came of it. */
export interface Tally {
  /** Processes that were killed. */
  kills: number;
  /** Of them, those that left a checkpoint half-written. */
  duringSave: number;
  /** Processes that were started with `--resume`. */
  resumes: number;
  /** Of them, those that went on from a checkpoint; the others were killed before the first. */
  fromCheckpoint: number;
  /** Newest checkpoints that were damaged on purpose before a resume. */
  damagedOnPurpose: number;
  /** Checkpoints that a resume passed over as damaged. */
  damagedMet: number;
  /** Runs that came to their end, each equal to the one that was left alone. */
  completed: number;
  elapsedMs: number;
}

/** How to kill. */
export interface KillOptions {
  readonly kills: number;
  /** Of when, and of what is damaged. */
  readonly seed: number;
  /** Steps of the run. */
  readonly steps?: number;
  /** A folder of its own. */
  readonly folder: string;
  readonly log?: (line: string) => void;
}

/**
 * Kills runs until there were as many kills as asked for. Half of the kills are aimed at a checkpoint being written, the
 * others at any moment. Before one resume in four the newest checkpoint is damaged, where an older one is left to go back to.
 *
 * @param options how often, and where
 * @throws {AssertionError} when a run does not resume, or its end differs in a bit
 */
export async function killRuns(options: KillOptions): Promise<Tally> {
  const { kills, seed, folder, steps = 40, log = () => {} } = options;
  const random = seededRandom(seed);
  const start = performance.now();
  const tally: Tally = {
    ...{ kills: 0, duringSave: 0, resumes: 0, fromCheckpoint: 0 },
    ...{ damagedOnPurpose: 0, damagedMet: 0, completed: 0, elapsedMs: 0 },
  };
  const flags = await prepare(folder, steps);
  const whole = join(folder, "whole");
  const before = performance.now();
  const first = await live(whole, ["train", ...flags, "--output", whole]);
  assert.equal(first.code, 0, first.text);
  const wholeMs = performance.now() - before;
  const expected = await resultOf(whole);
  log(`The run that was left alone took ${(wholeMs / 1000).toFixed(1)} s.`);
  for (let run = 0; tally.kills < kills; run++) {
    const output = join(folder, `run-${run}`);
    const again = { output, flags, wholeMs, random, tally };
    while (!await liveAgain(again, { mayKill: tally.kills < kills })) {
      if (tally.kills % 10 === 0) log(`${tally.kills} kills, ${tally.completed} runs completed`);
    }
    assert.deepEqual(await resultOf(output), expected, `run ${run} differs from the one that was left alone`);
    const names = await namesIn(join(output, "checkpoints"));
    assert.ok(names.length > 0 && names.every((name) => /^step-\d{6}$/.test(name)), `checkpoints: ${names}`);
    tally.completed++;
    await Deno.remove(output, { recursive: true });
  }
  tally.elapsedMs = performance.now() - start;
  return tally;
}

/** One more process of a run; returns whether the run came to its end. */
async function liveAgain(
  run: { output: string; flags: string[]; wholeMs: number; random: () => number; tally: Tally },
  { mayKill }: { mayKill: boolean },
): Promise<boolean> {
  const { output, flags, wholeMs, random, tally } = run;
  const isAimed = random() < 0.5;
  const kill = isAimed
    ? { saves: 1 + Math.floor(random() * 4), afterMs: random() * SAVE_MS }
    : { saves: 0, afterMs: random() * wholeMs };
  const isBegun = await exists(join(output, "config.json"));
  // Killed before it had written its settings: there is nothing to resume.
  if (!isBegun && await exists(output)) await Deno.remove(output, { recursive: true });
  if (isBegun && random() < 0.25 && await damageNewest(output, random)) tally.damagedOnPurpose++;
  const args = isBegun ? ["train", "--resume", "--output", output] : ["train", ...flags, "--output", output];
  const { code, signal, text } = await live(output, args, mayKill ? kill : undefined);
  if (isBegun) tally.resumes++;
  if (/^Going on after step/m.test(text)) tally.fromCheckpoint++;
  tally.damagedMet += text.match(/^Left out /gm)?.length ?? 0;
  if (code === 0 && signal === null) return true;
  assert.equal(signal, "SIGKILL", `${args.join(" ")} ended with ${code}:\n${text}`);
  tally.kills++;
  if ((await savesUnderWay(output)).length > 0) tally.duringSave++;
  return false;
}

/** A tiny model and its data; the flags to train it. */
async function prepare(folder: string, steps: number): Promise<string[]> {
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  return [
    ...["--model", model, "--data", data, "--batch-size", "4", "--learning-rate", "0.01"],
    ...["--spo.solver", "penalty", "--spo.lambda-schedule", "dual", "--spo.dual-rate", "0.5"],
    ...["--max-steps", `${steps}`, "--log-every", "3", "--save-steps", "2"],
  ];
}

interface Kill {
  /** Saves that have to be seen to begin before; 0 for none. */
  readonly saves: number;
  readonly afterMs: number;
}

/** Runs a process to its end, or kills it. */
async function live(output: string, args: readonly string[], kill?: Kill) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER, ...args],
    ...{ cwd: ROOT, env: { NO_COLOR: "1" }, stdin: "null", stdout: "piped", stderr: "piped" },
  }).spawn();
  let isOver = false;
  const killing = kill && (async () => {
    const seen = new Set<string>();
    while (seen.size < kill.saves && !isOver) {
      await sleep(LOOK_MS);
      for (const name of await savesUnderWay(output)) if (name.includes(`.${child.pid}.`)) seen.add(name);
    }
    const end = performance.now() + kill.afterMs;
    while (!isOver && performance.now() < end) {
      await sleep(Math.min(20, end - performance.now()));
    }
    if (!isOver) child.kill("SIGKILL");
  })();
  const { code, signal, stdout, stderr } = await child.output();
  isOver = true;
  await killing;
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return { code, signal, text };
}

async function savesUnderWay(output: string): Promise<string[]> {
  return (await namesIn(join(output, "checkpoints"))).filter((name) => name.endsWith(".partial"));
}

/** Changes a bit or cuts a file of the newest checkpoint, where an older one is left to go back to. */
async function damageNewest(output: string, random: () => number): Promise<boolean> {
  const root = join(output, "checkpoints");
  const steps = (await namesIn(root)).filter((name) => name.startsWith("step-")).sort();
  if (steps.length < 2) return false;
  const files = ["manifest.json", "state.json", "state.safetensors", "model/model.safetensors"];
  const path = join(root, steps.at(-1)!, files[Math.floor(random() * files.length)]);
  const bytes = await Deno.readFile(path);
  const at = Math.floor(random() * bytes.length);
  if (random() < 0.5) await Deno.truncate(path, at);
  else {
    bytes[at] = bytes[at] === 0x20 ? 0x21 : bytes[at] ^ 0x80;
    await Deno.writeFile(path, bytes);
  }
  return true;
}

/** What must not depend on kills: the hashes of weights, and every number that was logged but those of the process. */
async function resultOf(output: string): Promise<Record<string, unknown>> {
  const result: Record<string, unknown> = {};
  for (const name of (await namesIn(join(output, "model"))).sort()) {
    result[name] = createHash("sha256").update(await Deno.readFile(join(output, "model", name))).digest(
      "hex",
    );
  }
  const metrics = await Deno.readTextFile(join(output, "metrics.jsonl"));
  result.metrics = metrics.trimEnd().split("\n").map((line) => {
    const record = JSON.parse(line);
    for (const name of OF_THE_PROCESS) delete record[name];
    return record;
  });
  for (const name of ["results.json", "samples.jsonl"]) {
    result[name] = await Deno.readTextFile(join(output, name));
  }
  return result;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
