/**
 * The end of a job: all ranks together, whatever happens to one of them.
 * @module
 */
import type { Communicator } from "./communicator.ts";
import { DisagreementError } from "./errors.ts";

/** What a launcher has to pass a rank's last line on. */
const RELAY_MS = 250;

/**
 * Runs a rank's part of a job. An error of one rank ends all of them: others would wait for it until their time-out.
 *
 * @param communicator of this rank; it is left or aborted when this returns
 * @param body this rank's part
 * @param report prints a line; with several ranks each begins with the rank that it comes from
 * @returns the exit code of this process: 0, or 1 after an error; an abort does not come back at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { singleRank } from "./communicator.ts";
 *
 * const exitCode = await runRank(singleRank(), ({ rank }) => void assert.equal(rank, 0), console.error);
 * assert.equal(exitCode, 0);
 * ```
 */
export async function runRank(
  communicator: Communicator,
  body: (communicator: Communicator) => void | Promise<void>,
  report: (line: string) => void,
): Promise<number> {
  const { rank, size } = communicator;
  try {
    await body(communicator);
    communicator.finalize();
    return 0;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const place = size > 1 ? `rank ${rank} of ${size}: ` : "";
    if (error instanceof DisagreementError) {
      // All ranks throw it, and say the same.
      if (rank === 0) message.split("\n").forEach((line) => report(line));
      communicator.finalize();
    } else {
      report(`${place}${message}`);
      if (size > 1) {
        // A launcher passes lines on by itself, and MPICH's drops those that it has not when a rank aborts.
        await new Promise((resolve) => setTimeout(resolve, RELAY_MS));
        communicator.abort(1);
      }
    }
    return 1;
  }
}
