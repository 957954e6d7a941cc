/**
 * Runs a reader on damaged inputs, by a seed: each is read, or refused by an InputError, within time and memory.
 * @module
 */
import assert from "node:assert/strict";
import { InputError } from "../../train/errors.ts";
import { seededRandom } from "../reference/random.ts";

/** A reader and how its inputs are made. */
export interface FuzzTarget {
  readonly name: string;
  /** Makes an input from random numbers and reads it. */
  attempt(random: () => number): unknown;
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
      await target.attempt(seededRandom(seed * 1_000_003 + index));
      accepted++;
    } catch (error) {
      if (!(error instanceof InputError)) fail(String((error as Error)?.stack ?? error));
      else if (error.message.length >= 2000) fail(`a message of ${error.message.length} characters`);
    }
    const elapsedMs = performance.now() - before;
    if (elapsedMs > LIMIT_MS) fail(`${elapsedMs} ms`);
    const { external, heapTotal } = Deno.memoryUsage();
    const added = external + heapTotal - start.external - start.heapTotal;
    if (added > MEMORY_BYTES) fail(`${added} bytes`);
  }
  return { name: target.name, inputs, accepted, findings, seconds: (performance.now() - began) / 1000 };
}

/** Fails with the first findings; without any, checks that damage was neither harmless nor hopeless. */
export function assertClean({ name, inputs, accepted, findings }: FuzzFigures): void {
  assert.deepEqual(findings.slice(0, 3), []);
  assert.ok(accepted > 0 && accepted < inputs, `${name}: ${accepted} of ${inputs} accepted`);
}
