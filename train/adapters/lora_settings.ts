/**
 * What a run's settings say of LoRA.
 * @module
 */
import { z } from "zod";
import type { LoraOptions } from "./lora.ts";
import { ALL_LINEAR, parseTargets } from "./target_modules.ts";

/** Settings under `lora`; a rank turns it on. */
export const loraSchema = z.strictObject({
  /** r: a fresh adapter of this rank is trained, the model is frozen. */
  rank: z.int().positive().optional(),
  /** Scales the adapter by alpha / r; twice the rank by default. */
  alpha: z.number().positive().optional(),
  /** Linear layers: all-linear, names with commas between them, or a regular expression of whole names. */
  targetModules: z.string().min(1).default(ALL_LINEAR),
  /** Scale by alpha / sqrt(r) instead (arXiv 2312.03732). */
  rslora: z.boolean().default(false),
  /** Of a run that goes on from a trained adapter: the model as it starts, or without the adapter. */
  reference: z.enum(["start", "base"]).default("start"),
});

/** Effective settings. */
export type LoraSettings = z.output<typeof loraSchema>;

/** Settings of a fresh adapter. */
const FRESH = ["alpha", "targetModules", "rslora"] as const;

/**
 * @param lora settings
 * @param given keys that the user set
 * @returns a key that nothing reads, and what would read it; nothing where all are read
 */
export function findLoraConflict(
  lora: LoraSettings,
  given: ReadonlySet<string>,
): [key: keyof LoraSettings, expected: string] | undefined {
  if (lora.rank !== undefined) return undefined;
  const unread = FRESH.find((key) => given.has(key));
  return unread && [unread, "a rank, which turns LoRA on"];
}

/** The settings that a run reads, for its config.json; nothing where LoRA is off. */
export function readLoraSettings(lora: LoraSettings): Partial<LoraSettings> | undefined {
  if (lora.rank !== undefined) return { ...lora, alpha: lora.alpha ?? 2 * lora.rank };
  return lora.reference === "start" ? undefined : { reference: lora.reference };
}

/**
 * @param lora settings with a rank
 * @param options of the run: the seed, and the name of the base
 */
export function loraOptionsOf(
  { rank, alpha, targetModules, rslora }: LoraSettings & { rank: number },
  options: { seed: number; base: string },
): LoraOptions {
  return { rank, alpha, rslora, targetModules: parseTargets(targetModules), ...options };
}
