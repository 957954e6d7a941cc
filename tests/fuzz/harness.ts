/**
 * Runs a reader on damaged inputs, by a seed: each is read, or refused by an error of the user's, within time and memory.
 * @module
 */
import assert from "node:assert/strict";
import { InputError } from "../../train/errors.ts";
import { seededRandom } from "../reference/random.ts";

/** A reader and how its inputs are made. */
export interface FuzzTarget {
  readonly name: string;
  /** Makes an input from random numbers, or from its number, and reads it. */
  attempt(random: () => number, index: number): unknown;
  /** What refuses an input; any InputError by default. */
  readonly refusal?: typeof InputError;
  /** What the message of a refusal is like. */
  readonly message?: RegExp;
}

/** What became of the inputs. */
export interface FuzzFigures {
  readonly name: string;
  readonly inputs: number;
  readonly accepted: number;
  readonly findings: readonly string[];
  readonly seconds: number;
}

/** Most of what reading a small damaged input may add to the process, in bytes: far above what the runtime needs. */
const MEMORY_BYTES = 2 ** 28;
/** No input may take longer, on a loaded machine. */
const LIMIT_MS = 5000;

/**
 * @param target what is fuzzed
 * @param options how many inputs, and the seed; input i of a seed is the same whatever their number
 * @returns counts, and one line for each input that broke a promise
 */
export async function fuzz(
  target: FuzzTarget,
  { inputs, seed }: { inputs: number; seed: number },
): Promise<FuzzFigures> {
  const began = performance.now();
  const start = Deno.memoryUsage();
  const findings: string[] = [];
  let accepted = 0;
  for (let index = 0; index < inputs; index++) {
    const before = performance.now();
    const fail = (text: string) => findings.push(`${target.name}, seed ${seed}, input ${index}: ${text}`);
    try {
      await target.attempt(seededRandom(seed * 1_000_003 + index), index);
      accepted++;
    } catch (error) {
      const found = findingOf(error, target);
      if (found !== undefined) fail(found);
    }
    const elapsedMs = performance.now() - before;
    if (elapsedMs > LIMIT_MS) fail(`${elapsedMs} ms`);
    const { external, heapTotal } = Deno.memoryUsage();
    const added = external + heapTotal - start.external - start.heapTotal;
    if (added > MEMORY_BYTES) fail(`${added} bytes`);
  }
  return { name: target.name, inputs, accepted, findings, seconds: (performance.now() - began) / 1000 };
}

/** What is wrong with an error, if anything is. */
function findingOf(error: unknown, { refusal = InputError, message }: FuzzTarget): string | undefined {
  if (!(error instanceof refusal)) return String((error as Error)?.stack ?? error);
  if (error.message.length >= 2000) return `a message of ${error.message.length} characters`;
  if (message && !message.test(error.message)) {
    return `a message that is not like ${message}: ${error.message}`;
  }
}

/**
 * Fails with the first findings; without any, checks that damage was neither harmless nor hopeless.
 *
 * @param figures Of {@link fuzz}.
 * @param between How many must have been accepted, both ends left out; some but not all by default.
 */
export function assertClean(
  { name, inputs, accepted, findings }: FuzzFigures,
  [least, most]: readonly [number, number] = [0, inputs],
): void {
  assert.deepEqual(findings.slice(0, 3), []);
  assert.ok(accepted > least && accepted < most, `${name}: ${accepted} of ${inputs} accepted`);
}

/**
 * Registers a test of a reader.
 *
 * @param name Of the test.
 * @param options.target What is fuzzed.
 * @param options.inputs How many.
 * @param options.seed Of the inputs.
 * @param options.accepted How many must be accepted, both ends left out.
 */
export function fuzzTest(
  name: string,
  { target, inputs, seed, accepted }: {
    target: Omit<FuzzTarget, "name">;
    inputs: number;
    seed: number;
    accepted: readonly [number, number];
  },
): void {
  Deno.test(name, async () => assertClean(await fuzz({ name, ...target }, { inputs, seed }), accepted));
}
