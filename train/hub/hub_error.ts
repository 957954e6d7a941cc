/**
 * What goes wrong between this machine and a model hub.
 * @module
 */
import { InputError } from "../errors.ts";

/**
 * A model cannot be had from the hub: its name, the access to it, the network, or what was sent. The message says what
 * to do about it; what was downloaded so far is kept, and the next download goes on from there.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { InputError } from "../errors.ts";
 *
 * assert(new HubError("Cannot download a/b: expected a repository, found none") instanceof InputError);
 * ```
 */
export class HubError extends InputError {
  /** The class, as messages print it. */
  override name = "HubError";
}

/** A fault that may be gone at the next attempt; becomes a {@link HubError} after the last one. */
export class TransientHubError extends HubError {
  /** How long the server asks to wait, where it says so. */
  readonly retryAfterMs?: number;

  /**
   * @param message of the error that is thrown after the last attempt
   * @param options the cause, and how long the server asks to wait
   */
  constructor(message: string, options: ErrorOptions & { retryAfterMs?: number } = {}) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
}
