/**
 * RoPE beyond the length that a model was first trained to, as config.json asks for it: `rope_scaling` beside
 * `rope_theta` (transformers 4), or both as `rope_parameters` (transformers 5).
 * @module
 */
import { z } from "zod";
import type { Gpu } from "../../engine/gpu.ts";
import { ropeTable } from "../../engine/ops/rope.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { integer, parsePart, real, refuse } from "./config_parts.ts";

/** What becomes of the frequencies of {@link RopeSettings.rope_theta}. */
export type RopeScaling =
  /** All are divided by `factor` (position interpolation, arXiv 2306.15595). */
  | { rope_type: "linear"; factor: number }
  /** The base grows with the length, once that exceeds `max_position_embeddings` (NTK-aware, arXiv 2309.00071). */
  | { rope_type: "dynamic"; factor: number }
  /** Wavelengths beyond the first training's context are stretched, a band of them in part (Llama 3.1). */
  | {
    rope_type: "llama3";
    factor: number;
    low_freq_factor: number;
    high_freq_factor: number;
    original_max_position_embeddings: number;
  };

/** How positions become rotations. */
export interface RopeSettings {
  /** The base of RoPE's frequencies (arXiv 2104.09864). */
  rope_theta: number;
  /** None where it is null. */
  rope_scaling: RopeScaling | null;
}

const theta = real(0, 1e12);
const factor = z.number("a number from 1 to 1000000").min(1, "a number from 1 to 1000000").max(
  1e6,
  "a number from 1 to 1000000",
);
/** Keys that any kind may have, with the values that change nothing. */
const COMMON = {
  rope_theta: theta.nullish(),
  partial_rotary_factor: z.literal(1, "1 (rotating a part of a head is not supported)").nullish(),
  attention_factor: z.literal(1, "1 (other values are not supported)").nullish(),
};
const SCHEMAS = {
  default: z.strictObject({ ...COMMON, factor: z.literal(1, "1").nullish() }),
  linear: z.strictObject({ ...COMMON, factor }),
  dynamic: z.strictObject({ ...COMMON, factor }),
  llama3: z.strictObject({
    ...COMMON,
    factor,
    low_freq_factor: real(0, 1e6),
    high_freq_factor: real(0, 1e6),
    original_max_position_embeddings: integer(1, 2 ** 26).nullish(),
  }),
};

/** Kinds of RoPE by transformers' names. */
export type RopeType = keyof typeof SCHEMAS;

/**
 * Reads how a model rotates.
 *
 * @param json the parsed content of config.json
 * @param file it came from, for messages
 * @param options.maxPositions `max_position_embeddings`
 * @param options.types the kinds that the architecture has; all by default
 * @returns base and scaling, 10000 and none by default
 * @throws {ConfigError} naming the key: for a kind that is not supported, or two places that contradict each other
 * @example
 * ```ts
 * const json = { rope_theta: 500000, rope_scaling: { type: "linear", factor: 2 } };
 * const { rope_theta, rope_scaling } = parseRope(json, "config.json", { maxPositions: 2048 });
 * if (rope_theta !== 500000 || rope_scaling?.rope_type !== "linear") throw new Error("`type` is the older spelling");
 * ```
 */
export function parseRope(
  json: Record<string, unknown>,
  file: string,
  options: { maxPositions: number; types?: readonly RopeType[] },
): RopeSettings {
  const given = ["rope_parameters", "rope_scaling"].filter((key) => (json[key] ?? null) !== null)
    .map((key) => ({ key, ...parseObject(json[key], { key, file, ...options }) }));
  const own = parsePart(z.object({ rope_theta: theta.nullish() }), json, { file }).rope_theta;
  const bases = [
    { key: "rope_theta", theta: own },
    ...given.map(({ key, theta }) => ({ key: `${key}.rope_theta`, theta })),
  ].filter((base) => (base.theta ?? null) !== null);
  for (const { key, theta } of bases) {
    if (theta === bases[0].theta) continue;
    throw refuse(file, key, { expected: `${bases[0].key}'s ${bases[0].theta}`, found: theta });
  }
  const [first, second] = given;
  if (second && JSON.stringify(first.scaling) !== JSON.stringify(second.scaling)) {
    throw refuse(file, "rope_scaling", { expected: "what rope_parameters says", found: json.rope_scaling });
  }
  return { rope_theta: bases[0]?.theta ?? 10000, rope_scaling: first?.scaling ?? null };
}

function parseObject(
  value: unknown,
  place: { key: string; file: string; maxPositions: number; types?: readonly RopeType[] },
): { theta?: number | null; scaling: RopeScaling | null } {
  const { key, file, maxPositions, types = Object.keys(SCHEMAS) as RopeType[] } = place;
  const options = { file, under: key };
  const { type: older, rope_type: newer, ...rest } = parsePart(
    z.looseObject({ type: z.string().nullish(), rope_type: z.string().nullish() }, "an object"),
    value,
    options,
  );
  const found = newer ?? older ?? "default";
  if (!types.includes(found as RopeType)) {
    const expected = `${types.map((name) => `"${name}"`).join(", ")} (others are not supported)`;
    throw refuse(file, `${key}.${newer ? "rope_type" : "type"}`, { expected, found });
  }
  if (older && newer && older !== newer) {
    throw refuse(file, `${key}.type`, { expected: `rope_type's "${newer}"`, found: older });
  }
  const type = found as RopeType;
  if (type === "default") {
    return { theta: parsePart(SCHEMAS.default, rest, options).rope_theta, scaling: null };
  }
  if (type !== "llama3") {
    const { rope_theta, factor } = parsePart(SCHEMAS[type], rest, options);
    return { theta: rope_theta, scaling: { rope_type: type, factor } };
  }
  const { rope_theta, ...llama3 } = parsePart(SCHEMAS.llama3, rest, options);
  const { low_freq_factor, high_freq_factor } = llama3;
  if (high_freq_factor <= low_freq_factor) {
    const expected = `a number above low_freq_factor ${low_freq_factor}`;
    throw refuse(file, `${key}.high_freq_factor`, { expected, found: high_freq_factor });
  }
  const original_max_position_embeddings = llama3.original_max_position_embeddings ?? maxPositions;
  return {
    theta: rope_theta,
    scaling: {
      rope_type: "llama3",
      factor: llama3.factor,
      ...{ low_freq_factor, high_freq_factor, original_max_position_embeddings },
    },
  };
}

/** What a table is made from. */
export interface RotaryConfig extends RopeSettings {
  /** D */
  head_dim: number;
  /** The longest sequence the model was made for. */
  max_position_embeddings: number;
}

/**
 * The longest sequence that a model can be made for: with dynamic scaling, `factor` times as long as it was made for.
 *
 * @returns tokens
 */
export function mostRopePositions({ rope_scaling, max_position_embeddings }: RotaryConfig): number {
  const stretch = rope_scaling?.rope_type === "dynamic" ? rope_scaling.factor : 1;
  return Math.floor(max_position_embeddings * stretch);
}

/**
 * The base and the change of its frequencies.
 *
 * Dynamic scaling grows the base with the length of the sequence, theta ((s n / m) - (s - 1))^(D / (D - 2)) for n > m
 * tokens, m = `max_position_embeddings`, s = `factor`; transformers does so again for every length, with one base for all
 * positions of a sequence. Here a model has one table, made for n = `positions`: up to m positions it is that of
 * transformers for every sequence, beyond them for sequences of exactly `positions` tokens.
 *
 * @param config of the model
 * @param positions that the table is for
 * @example
 * ```ts
 * const rope_scaling = { rope_type: "linear", factor: 4 } as const;
 * const config = { rope_theta: 10000, rope_scaling, head_dim: 64, max_position_embeddings: 2048 };
 * const { theta, scale } = ropeFrequencies(config, 2048);
 * if (theta !== 10000 || scale(1) !== 0.25) throw new Error("linear scaling divides every frequency");
 * ```
 */
export function ropeFrequencies(
  { rope_theta, rope_scaling, head_dim, max_position_embeddings }: RotaryConfig,
  positions: number,
): { theta: number; scale: (frequency: number) => number } {
  const unchanged = (frequency: number) => frequency;
  switch (rope_scaling?.rope_type) {
    case undefined:
      return { theta: rope_theta, scale: unchanged };
    case "linear":
      return { theta: rope_theta, scale: (frequency) => frequency / rope_scaling.factor };
    case "dynamic": {
      const length = Math.max(positions, max_position_embeddings);
      const { factor } = rope_scaling;
      const growth = factor * length / max_position_embeddings - (factor - 1);
      return { theta: rope_theta * growth ** (head_dim / (head_dim - 2)), scale: unchanged };
    }
    case "llama3":
      return { theta: rope_theta, scale: (frequency) => llama3Frequency(frequency, rope_scaling) };
  }
}

/** Short wavelengths stay, long ones are stretched by `factor`, and in between the two are mixed. */
function llama3Frequency(frequency: number, scaling: RopeScaling & { rope_type: "llama3" }): number {
  const { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = scaling;
  const turns = original_max_position_embeddings * frequency / (2 * Math.PI);
  const kept = Math.min(1, Math.max(0, (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)));
  return (1 - kept) * frequency / factor + kept * frequency;
}

/**
 * Cosines and sines of a model's positions.
 *
 * @param gpu the device
 * @param config of the model
 * @param positions how many
 * @returns `[positions, D]` for `rope`; the caller releases it
 */
export function scaledRopeTable(gpu: Gpu, config: RotaryConfig, positions: number): Tensor {
  return ropeTable(gpu, { positions, headDim: config.head_dim, ...ropeFrequencies(config, positions) });
}
