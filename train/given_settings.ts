/**
 * What was set, by flags or a file, under Keel's names or another library's: each with the name that errors call it by.
 * @module
 */
import { ConfigError, showFound } from "./errors.ts";
import { OPTION_NAMES, type OptionName, type OptionValue } from "./option_names.ts";

/** A setting that somebody gave. */
export interface GivenSetting {
  /** Dotted, `spo.lambda`. */
  readonly name: string;
  readonly value: unknown;
  /** A flag as typed, or a file and its key. */
  readonly described: string;
  /** What else has to hold; looked at when everything is known. */
  readonly terms?: Terms;
}

/** Conditions of a name that is another library's. */
interface Terms {
  readonly isPerMicroBatch?: boolean;
  /** A setting that must be given, or must not. */
  readonly demand?: { readonly setting: string; readonly isGiven: boolean; readonly note: string };
}

/**
 * Gathers settings of one origin.
 *
 * @param settings in the order that they were given
 * @returns by name
 * @throws {ConfigError} on a setting that was given twice, under one name or two
 */
export function gatherSettings(settings: Iterable<GivenSetting>): Map<string, GivenSetting> {
  const found = new Map<string, GivenSetting>();
  for (const setting of settings) {
    const { name, described } = setting;
    const earlier = found.get(name);
    if (earlier === undefined) found.set(name, setting);
    else {
      const other = earlier.described === described ? "" : ` (also as ${earlier.described})`;
      throw new ConfigError(`Cannot use ${described}: expected it once, found it twice${other}`);
    }
  }
  return found;
}

/**
 * Puts settings into the nested form of a schema.
 *
 * @param given by name
 * @returns nested values
 * @throws {ConfigError} where the terms of another library's name do not hold
 */
export function nestSettings(given: ReadonlyMap<string, GivenSetting>): Record<string, unknown> {
  const raw: Record<string, unknown> = {};
  for (const { name, value, described, terms } of given.values()) {
    const demand = terms?.demand;
    if (demand && given.has(demand.setting) !== demand.isGiven) {
      const expected = demand.isGiven ? `${demand.setting} beside it` : `no ${demand.setting} beside it`;
      throw new ConfigError(
        `Cannot use ${described}: expected ${expected} (${demand.note}), found ${
          given.get(demand.setting)?.described ?? "none"
        }`,
      );
    }
    // A group is filled below, and is somebody else's.
    const own = typeof value === "object" && !Array.isArray(value) ? { ...value } : value;
    if (value !== undefined) setValue(raw, name.split("."), { value: own });
  }
  const { batchSize, gradientAccumulationSteps: parts = 1 } = raw;
  const isPerMicroBatch = given.get("batchSize")?.terms?.isPerMicroBatch;
  if (isPerMicroBatch && typeof batchSize === "number" && typeof parts === "number") {
    raw.batchSize = batchSize * parts;
  }
  return raw;
}

/**
 * What another library's name sets.
 *
 * @param key the name, in snake case
 * @param value as given
 * @param described how errors name it
 * @throws {ConfigError} where nothing has the same meaning, saying what to use instead
 */
export function translateOption(key: string, value: unknown, described: string): GivenSetting {
  const option = OPTION_NAMES[key];
  const refuse = (expected: string, found: string) =>
    new ConfigError(`Cannot use ${described}: expected ${expected}, found ${found}`);
  if ("instead" in option) throw refuse(option.instead, `${option.from.join(" and ")}'s ${key}`);
  if ("always" in option) {
    if (!option.always.includes(value as OptionValue)) {
      throw refuse(`${option.always.join(" or ")}, as ${option.note}`, showFound(value));
    }
    return { name: key, value: undefined, described };
  }
  if ("switches" in option) return switchOf(key, value, { option, described, refuse });
  const { setting: name, isPerMicroBatch, beside, note = "" } = option;
  const translated = translateValue(value, { option, refuse });
  const demand = beside === undefined ? undefined : { setting: beside, isGiven: true, note };
  return { name, value: translated, described, terms: { isPerMicroBatch, demand } };
}

type Refuse = (expected: string, found: string) => ConfigError;

function switchOf(
  key: string,
  value: unknown,
  { option, described, refuse }: {
    option: Extract<OptionName, { switches: string }>;
    described: string;
    refuse: Refuse;
  },
): GivenSetting {
  const { switches: setting, on, off, note } = option;
  if (value !== on && (off === undefined || value !== off)) {
    throw refuse(`${off === undefined ? on : `${on} or ${off}`}, as ${note}`, showFound(value));
  }
  return {
    name: key,
    value: undefined,
    described,
    terms: { demand: { setting, isGiven: value === on, note } },
  };
}

function translateValue(
  value: unknown,
  { option, refuse }: { option: Extract<OptionName, { setting: string }>; refuse: Refuse },
): unknown {
  const { values, isList, note } = option;
  if (isList && Array.isArray(value)) return value.join(",");
  if (values === undefined) return value;
  const word = String(value);
  if (!Object.hasOwn(values, word) || typeof value === "object") {
    const words = Object.keys(values);
    throw refuse(
      `${words.length > 1 ? "one of " : ""}${words.join(", ")}${note === undefined ? "" : ` (${note})`}`,
      showFound(value),
    );
  }
  return values[word];
}

function setValue(
  target: Record<string, unknown>,
  path: readonly string[],
  { value }: { value: unknown },
): void {
  const [key, ...rest] = path;
  if (rest.length === 0) target[key] = value;
  else setValue((target[key] ??= {}) as Record<string, unknown>, rest, { value });
}
