/**
 * What a pairwise loss is: a name, options with defaults, and the head of the kernel that computes it.
 * @module
 */
import type { z } from "zod";
import type { PairLossOptions } from "../../engine/ops/pair_loss.ts";

/** A pairwise loss as its file defines it. */
export interface PairLossDefinition<Schema extends z.ZodObject> {
  readonly name: string;
  /** Its own options; any other option given with it is refused. */
  readonly options: Schema;
  /** Whether the loss itself reads the reference's log-probs (the displacement panel always does). */
  readonly needsReference: boolean;
  /** Options to the kernel's numbers. */
  readonly head: (options: z.output<Schema>) => PairLossOptions;
  /** The loss where policy and reference are equal; undefined when it depends on the data. */
  readonly initialLoss?: (options: z.output<Schema>) => number;
}

/** A loss with its options filled in. */
export interface ResolvedPairLoss {
  readonly name: string;
  /** Effective options, defaults included. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly needsReference: boolean;
  readonly head: PairLossOptions;
  readonly initialLoss?: number;
}

/** A loss that takes options from outside. */
export interface PairLoss {
  readonly name: string;
  /** Option names it knows. */
  readonly optionNames: readonly string[];
  /**
   * @param given options as the user set them, without defaults
   * @throws {z.ZodError} on a value out of range or an option that this loss does not have
   */
  resolve(given: Readonly<Record<string, unknown>>): ResolvedPairLoss;
}

/** Turns a definition into a loss of the registry. */
export function definePairLoss<Schema extends z.ZodObject>(definition: PairLossDefinition<Schema>): PairLoss {
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
