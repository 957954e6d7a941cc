/**
 * Attempts at something that the network may spoil.
 * @module
 */
import { TransientHubError } from "./hub_error.ts";

/** How often, and how fast one after the other. */
export interface RetryPolicy {
  /** Attempts in a row without progress. */
  readonly attempts: number;
  /** Pause after the first one, in milliseconds; doubles with each. */
  readonly delayMs: number;
}

/** 0.5, 1 and 2 seconds between. */
export const DEFAULT_RETRY: RetryPolicy = { attempts: 4, delayMs: 500 };
/** A server that asks for more patience than this is taken at its word by the user, not waited for. */
const LONGEST_PAUSE_MS = 60_000;
/** A long download over a bad line goes on as long as each attempt brings this much. */
const PROGRESS_BYTES = 2 ** 20;

/**
 * Repeats a body while it throws {@link TransientHubError}.
 *
 * @param body what to attempt
 * @param options the policy; `doneBytes` tells how far the body has come, and its advance renews the attempts
 * @returns the body's result
 * @throws what the body threw last
 */
export async function retrying<Result>(
  body: () => Promise<Result>,
  { policy, doneBytes = () => 0 }: { policy: RetryPolicy; doneBytes?: () => number },
): Promise<Result> {
  let before = doneBytes();
  for (let attempt = 1;; attempt++) {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof TransientHubError)) throw error;
      if (doneBytes() - before >= PROGRESS_BYTES) {
        before = doneBytes();
        attempt = 1;
      }
      const pauseMs = Math.max(policy.delayMs * 2 ** (attempt - 1), error.retryAfterMs ?? 0);
      if (attempt >= policy.attempts || pauseMs > LONGEST_PAUSE_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}
