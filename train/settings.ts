/**
 * The settings of a schema as a flat list: what a flag or a config file may set.
 * @module
 */
import { z } from "zod";

/** What a setting takes. `either` is one of the choices or a number. */
export type SettingKind = "text" | "number" | "integer" | "boolean" | "choice" | "either";

/** One value that a user can set. */
export interface Setting {
  /** Keys from the schema's root. */
  readonly path: readonly string[];
  /** The path joined by dots, `spo.lambdaSchedule`. */
  readonly name: string;
  /** Its flag, `--spo.lambda-schedule`. */
  readonly flag: string;
  readonly kind: SettingKind;
  /** Words it takes, for `choice` and `either`. */
  readonly choices: readonly string[];
  /** The schema's default, if it has one. */
  readonly default?: unknown;
}

/** The parts of JSON Schema that zod writes for settings. */
interface JsonSchema {
  type?: string;
  properties?: Record<string, JsonSchema>;
  enum?: string[];
  anyOf?: JsonSchema[];
  const?: unknown;
  default?: unknown;
}

/**
 * Lists the settings of a schema in its order; those of a nested object follow as `parent.key`.
 *
 * @param schema an object of texts, numbers, booleans, enums, and objects of these
 * @throws {TypeError} on a value that a flag cannot hold
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 * const settings = listSettings(z.object({ spo: z.object({ vStar: z.number() }) }));
 * assert.equal(settings[0].flag, "--spo.v-star");
 * ```
 */
export function listSettings(schema: z.ZodObject): Setting[] {
  return walk(z.toJSONSchema(schema, { io: "input" }) as JsonSchema, []);
}

/**
 * The flag that sets a path: kebab case, dots between levels.
 *
 * @param path keys from the root
 */
export function flagOf(path: readonly string[]): string {
  return `--${path.map((key) => key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)).join(".")}`;
}

function walk(schema: JsonSchema, path: readonly string[]): Setting[] {
  if (schema.properties) {
    return Object.entries(schema.properties).flatMap(([key, child]) => walk(child, [...path, key]));
  }
  const choices = schema.enum ?? schema.anyOf?.flatMap((option) => option.const ?? []).map(String) ?? [];
  const kind = kindOf(schema, path.join("."));
  return [{ path, name: path.join("."), flag: flagOf(path), kind, choices, default: schema.default }];
}

function kindOf(schema: JsonSchema, name: string): SettingKind {
  if (schema.enum) return "choice";
  if (schema.anyOf?.every((option) => option.const !== undefined || option.type === "number")) {
    return "either";
  }
  if (schema.type === "string") return "text";
  if (schema.type === "number" || schema.type === "integer" || schema.type === "boolean") return schema.type;
  throw new TypeError(
    `Cannot make a flag of ${name}: expected a single value, found ${JSON.stringify(schema)}`,
  );
}
