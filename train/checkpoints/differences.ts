/**
 * Two values that should be the same, compared key by key.
 * @module
 */
import { showFound } from "../errors.ts";

/**
 * Compares values that JSON can hold; the order of keys means nothing.
 *
 * @param expected one of them
 * @param found the other
 * @returns a phrase for each key that differs; none where they are the same
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const differences = findDifferences({ seed: 0, data: { sha256: "ab" } }, { data: { sha256: "cd" }, seed: 0 });
 * assert.deepEqual(differences, ['data.sha256: expected "ab", found "cd"']);
 * ```
 */
export function findDifferences(expected: unknown, found: unknown): string[] {
  return differ(expected, found, []);
}

function differ(expected: unknown, found: unknown, path: readonly string[]): string[] {
  if (isObject(expected) && isObject(found)) {
    const keys = new Set([...Object.keys(expected), ...Object.keys(found)]);
    return [...keys].flatMap((key) => differ(ownValue(expected, key), ownValue(found, key), [...path, key]));
  }
  if (canonical(expected) === canonical(found)) return [];
  return [`${path.join(".")}: expected ${showFound(expected)}, found ${showFound(found)}`];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function ownValue(object: Record<string, unknown>, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** JSON with keys in order: of objects in lists, the order of keys means nothing. */
function canonical(value: unknown): string | undefined {
  return JSON.stringify(
    value,
    (_, inner) =>
      isObject(inner)
        ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
  );
}
