/**
 * Who owns the buffers of a piece of work.
 * @module
 */
import type { Allocation } from "./buffers.ts";

/**
 * Owns allocations until it ends.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const own = new Scope();
 * gpu.pushScope(own);
 * gpu.allocate(256, "temporary"); // owned by the innermost scope
 * gpu.popScope(own);
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export class Scope {
  readonly #owned = new Set<Allocation>();

  /** Takes over a reference. */
  own(allocation: Allocation): void {
    this.#owned.add(allocation);
  }

  /** Releases one allocation early; nothing happens when this scope does not own it. */
  releaseEarly(allocation: Allocation): void {
    if (this.#owned.delete(allocation)) allocation.release();
  }

  /** Hands one allocation to another owner, who must release it. */
  disown(allocation: Allocation): boolean {
    return this.#owned.delete(allocation);
  }

  /** Releases everything that is still owned. */
  end(): void {
    for (const allocation of this.#owned) allocation.release();
    this.#owned.clear();
  }
}
