/**
 * Options that several losses have.
 * @module
 */
import { z } from "zod";

/** Strength of the preference. */
export function beta(value: number): z.ZodDefault<z.ZodNumber> {
  return z.number().positive().default(value);
}

/** Probability that a preference is labelled the wrong way round. */
export function labelSmoothing(value: number): z.ZodDefault<z.ZodNumber> {
  return z.number().min(0).lt(0.5).default(value);
}
