/**
 * When a run is saved, and where it goes on.
 * @module
 */
import type { Checkpoints } from "../trainer.ts";
import type { FoundCheckpoint } from "./find.ts";
import { restoreCheckpoint } from "./read.ts";
import { type CheckpointContext, saveStateNowhere, writeCheckpoint } from "./write.ts";

/** Where and when a run is saved. */
export interface RunCheckpointOptions extends Pick<CheckpointContext, "folder" | "keep" | "saveModel"> {
  /** What its result depends on, see `runIdentity`. */
  readonly identity: Readonly<Record<string, unknown>>;
  /** Where it goes on from; without it the run is new. */
  readonly found?: FoundCheckpoint;
  /** Steps between two saves; none by their number by default. */
  readonly saveSteps?: number;
  /** Minutes between two saves; 0 saves none by the time. */
  readonly saveMinutes: number;
  /** Bytes of metrics.jsonl so far, which are on the disk. */
  readonly metricsBytes: () => number;
  /** Milliseconds; performance.now by default. */
  readonly now?: () => number;
}

/**
 * Saves a run every so many steps or minutes, whichever comes first, and when it is stopped.
 *
 * @param options where and when
 */
export function runCheckpoints(options: RunCheckpointOptions): Checkpoints {
  const { folder, keep, saveModel, identity, found, saveSteps, saveMinutes, metricsBytes } = options;
  const now = options.now ?? (() => performance.now());
  let last = now();
  return {
    async resume(parts) {
      if (!found) return 0;
      await restoreCheckpoint(found, { step: found.step, parts, metricsBytes: found.metricsBytes });
      return found.step;
    },
    isDue(step) {
      if (saveSteps !== undefined && step % saveSteps === 0) return true;
      return saveMinutes > 0 && now() - last >= saveMinutes * 60_000;
    },
    async save({ step, parts, loss }) {
      const score = loss === undefined ? {} : { score: -loss };
      const state = { step, parts, metricsBytes: metricsBytes() };
      await writeCheckpoint(state, { folder, identity, keep, saveModel, ...score });
      // What saving takes is not training's time.
      last = now();
    },
  };
}

/** Of a planning device: takes the memory of a save, and writes nothing. */
export function plannedCheckpoints(): Checkpoints {
  let isPlanned = false;
  return {
    isDue: () => !isPlanned,
    async save({ step, parts }) {
      isPlanned = true;
      await saveStateNowhere({ step, parts, metricsBytes: 0 });
    },
  };
}
