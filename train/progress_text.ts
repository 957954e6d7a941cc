/**
 * Where a phase stands, in words.
 * @module
 */
import { formatBytes } from "./format_bytes.ts";

/** Where a phase stands. A number that is left out keeps the value of the update before. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  readonly loss?: number;
  /** Share of the pairs in the right order, 0 to 1: `rewards/accuracies`. */
  readonly rewardAccuracy?: number;
  readonly tokensPerSecond?: number;
  readonly gpuMemoryBytes?: number;
  /** Steps that an earlier process did: nothing of the time that is left follows from them. */
  readonly resumedFrom?: number;
}

/** A phase and its time. */
export interface PhaseTiming {
  /** Name of the phase. */
  readonly label: string;
  /** Steps of the phase. */
  readonly total: number;
  readonly elapsedMs: number;
}

/** Pieces of a line in their order; those of what is unknown are missing. */
export type ProgressTexts =
  & Readonly<Record<"label" | "step" | "elapsed", string>>
  & Readonly<Partial<Record<"loss" | "accuracy" | "speed" | "memory" | "left", string>>>;

/**
 * A state after another: what the new one leaves out is as it was.
 *
 * @param state before
 * @param next the new one
 */
export function advanceState(state: ProgressState | undefined, next: ProgressState): ProgressState {
  const known = Object.entries(next).filter(([, value]) => value !== undefined);
  return { ...state, ...Object.fromEntries(known), step: next.step };
}

/**
 * Says where a phase stands.
 *
 * @param state its last state
 * @param timing the phase and its time
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const texts = describeProgress({ step: 1, loss: 0.5 }, { label: "dpo", total: 4, elapsedMs: 2000 });
 * assert.equal(Object.values(texts).join("  "), "dpo  1/4  loss 0.5000  0:02 elapsed  0:06 left");
 * ```
 */
export function describeProgress(state: ProgressState, timing: PhaseTiming): ProgressTexts {
  const { step, loss, rewardAccuracy, tokensPerSecond, gpuMemoryBytes } = state;
  const leftMs = leftOf(state, timing);
  return {
    label: timing.label,
    step: `${step}/${timing.total}`,
    ...(loss === undefined ? {} : { loss: `loss ${loss.toFixed(4)}` }),
    ...(rewardAccuracy === undefined ? {} : { accuracy: `accuracy ${(rewardAccuracy * 100).toFixed(0)} %` }),
    ...(tokensPerSecond === undefined
      ? {}
      : { speed: `${Math.round(tokensPerSecond).toLocaleString("en-US")} tokens/s` }),
    ...(gpuMemoryBytes === undefined ? {} : { memory: formatBytes(gpuMemoryBytes) }),
    elapsed: `${formatDuration(timing.elapsedMs)} elapsed`,
    ...(leftMs === undefined ? {} : { left: `${formatDuration(leftMs)} left` }),
  };
}

function leftOf({ step, resumedFrom = 0 }: ProgressState, timing: PhaseTiming): number | undefined {
  const { total, elapsedMs } = timing;
  const done = step - resumedFrom;
  return done > 0 && step < total && elapsedMs > 0 ? elapsedMs / done * (total - step) : undefined;
}

/**
 * A duration as `0:07`, `12:34` or `1:02:03`.
 *
 * @param ms milliseconds, rounded to seconds
 */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(seconds / 3600);
  return hours > 0 ? [hours, ...parts].join(":") : parts.join(":").replace(/^0/, "");
}
