/**
 * @module
 */
import { ConfigError, InputError } from "../errors.ts";

/**
 * MPI cannot be used as this process was started: no library, another one than the launcher's, or fewer ranks than it
 * started.
 *
 * @example
 * ```ts
 * import { InputError } from "../errors.ts";
 *
 * const error: Error = new MpiUnavailableError("Cannot join 2 ranks: expected Open MPI's library, found none");
 * if (!(error instanceof InputError)) throw new Error("how a job is started is the user's to repair");
 * ```
 */
export class MpiUnavailableError extends InputError {
  /** The class, as messages print it. */
  override name = "MpiUnavailableError";
}

/**
 * An operation between ranks failed, or other ranks did not take part in it in time. The ranks can no longer work
 * together: the job has to be aborted.
 *
 * @example
 * ```ts
 * const error: Error = new MpiError("Cannot finish MPI_Allreduce: expected every rank within 600 s, found one missing");
 * if (error.name !== "MpiError") throw new Error("a fault of its own kind");
 * ```
 */
export class MpiError extends Error {
  /** The class, as messages print it. */
  override name = "MpiError";
}

/**
 * Ranks were started with different programs, settings, data or adapters. Every rank throws it at once, with the same
 * message.
 *
 * @example
 * ```ts
 * import { InputError } from "../errors.ts";
 *
 * const error: Error = new DisagreementError("Cannot start 2 ranks: expected version 0.1.0 everywhere, found 0.2.0");
 * if (!(error instanceof InputError)) throw new Error("it is the user's to repair");
 * ```
 */
export class DisagreementError extends ConfigError {
  /** The class, as messages print it. */
  override name = "DisagreementError";
}
