/**
 * Where configurations differ.
 * @module
 */
import type { ReportTable } from "./page.ts";

/**
 * A row for each setting that is not the same in all runs.
 *
 * @param configs of the runs, nested as they come
 * @param names of the runs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { rows } = configTable([{ spo: { lambda: 1 }, seed: 0 }, { seed: 0 }], ["a", "b"]);
 * assert.deepEqual(rows, [["spo.lambda", "1", "-"]]);
 * ```
 */
export function configTable(
  configs: readonly Readonly<Record<string, unknown>>[],
  names: readonly string[],
): ReportTable {
  const flat = configs.map((config) => new Map(flatten(config, [])));
  const keys = [...new Set(flat.flatMap((config) => [...config.keys()]))];
  const rows = keys.map((key) => [key, ...flat.map((config) => config.get(key) ?? "-")])
    .filter(([, ...values]) => new Set(values).size > 1);
  return { caption: "Settings that differ", headers: ["setting", ...names], rows };
}

function flatten(value: unknown, path: readonly string[]): [string, string][] {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, child]) => flatten(child, [...path, key]));
  }
  return [[path.join("."), JSON.stringify(value)]];
}
