/**
 * What a pairwise loss is: a name, options with defaults, and the head of the kernel that computes it.
 * @module
 */
import type { PairLossOptions } from "../../engine/ops/pair_loss.ts";

/** What a loss needs of its options' schema: the part of zod's objects that it uses. */
export interface PairLossOptionsSchema<Options> {
  /** Option names, as keys. */
  readonly shape: Readonly<Record<string, unknown>>;
  /** Fills in defaults; throws on what it does not accept. */
  parse(given: unknown): Options;
}

/** A pairwise loss as its file defines it. */
export interface PairLossDefinition<Options> {
  /** As `--loss` has it. */
  readonly name: string;
  /** Its own options; any other option given with it is refused. */
  readonly options: PairLossOptionsSchema<Options>;
  /** Whether the loss itself reads the reference's log-probs (the displacement panel always does). */
  readonly needsReference: boolean;
  /** Options to the kernel's numbers. */
  readonly head: (options: Options) => PairLossOptions;
  /** The loss where policy and reference are equal; undefined when it depends on the data. */
  readonly initialLoss?: (options: Options) => number;
}

/** A loss with its options filled in. */
export interface ResolvedPairLoss {
  /** As `--loss` has it. */
  readonly name: string;
  /** Effective options, defaults included. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Whether the loss itself reads the reference's log-probs. */
  readonly needsReference: boolean;
  /** The kernel's numbers. */
  readonly head: PairLossOptions;
  /** The loss where policy and reference are equal; undefined when it depends on the data. */
  readonly initialLoss?: number;
}

/** A loss that takes options from outside. */
export interface PairLoss {
  /** As `--loss` has it. */
  readonly name: string;
  /** Option names it knows. */
  readonly optionNames: readonly string[];
  /**
   * Fills in the options.
   *
   * @param given options as the user set them, without defaults
   * @throws {z.ZodError} on a value out of range or an option that this loss does not have
   */
  resolve(given: Readonly<Record<string, unknown>>): ResolvedPairLoss;
}

/**
 * Turns a definition into a loss of the registry.
 *
 * @param definition name, options and kernel head
 * @returns the loss, its options still open
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const slic = definePairLoss({
 *   name: "slic",
 *   options: z.strictObject({ delta: z.number().positive().default(1) }),
 *   needsReference: true,
 *   head: ({ delta }) => ({ loss: "hinge", beta: 1 / delta, option: 0 }),
 * });
 * assert.equal(slic.resolve({ delta: 4 }).head.beta, 0.25);
 * assert.throws(() => slic.resolve({ beta: 0.1 })); // not one of its options
 * ```
 */
export function definePairLoss<Options extends Readonly<Record<string, unknown>>>(
  definition: PairLossDefinition<Options>,
): PairLoss {
  return {
    name: definition.name,
    optionNames: Object.keys(definition.options.shape),
    resolve(given) {
      const options = definition.options.parse(given);
      const initialLoss = definition.initialLoss?.(options);
      return {
        name: definition.name,
        options,
        needsReference: definition.needsReference,
        head: definition.head(options),
        ...(initialLoss === undefined ? {} : { initialLoss }),
      };
    },
  };
}
