/**
 * Ranks that train together are one run: the same program, settings, data and kind of adapter.
 * @module
 */
import { findDifferences } from "../checkpoints/differences.ts";
import type { Communicator } from "./communicator.ts";
import { DisagreementError } from "./errors.ts";

/**
 * Compares what each rank is about to run with what rank 0 is. Every rank calls it, and every rank throws or none does.
 *
 * @param communicator the ranks
 * @param identity of this rank's run, as `runIdentity` makes it: version, settings, hashes of files, adapter
 * @throws {DisagreementError} with a line for each rank that differs from rank 0, naming each key
 * @throws {MpiError} when ranks cannot be asked
 * @example
 * ```ts
 * import { singleRank } from "./communicator.ts";
 *
 * await agree(singleRank(), { keelVersion: "0.1.0", settings: { beta: 0.1 } }); // alone, it agrees with itself
 * ```
 */
export async function agree(
  communicator: Communicator,
  identity: Readonly<Record<string, unknown>>,
): Promise<void> {
  const all = await communicator.allGather(new TextEncoder().encode(JSON.stringify(identity)));
  const [first, ...others] = all.map((bytes): unknown => JSON.parse(new TextDecoder().decode(bytes)));
  const lines = others.flatMap((other, index) => {
    const differences = findDifferences(first, other);
    return differences.length === 0 ? [] : [`rank ${index + 1}: ${differences.join("; ")}`];
  });
  if (lines.length === 0) return;
  const ranks = `${communicator.size} ranks`;
  throw new DisagreementError(
    lines.map((line) => `Cannot start ${ranks} that differ from rank 0: ${line}`).join("\n"),
  );
}
