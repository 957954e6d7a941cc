/**
 * Equality of parsed JSON.
 * @module
 */

/**
 * Whether two values of parsed JSON are equal; the order of an object's keys does not count.
 *
 * @param a one
 * @param b the other
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * assert(isSameJson({ role: "user", content: ["a"] }, { content: ["a"], role: "user" }));
 * assert(!isSameJson({ role: "user" }, { role: "user", name: undefined })); // a key that the other lacks
 * assert(!isSameJson(["a"], { 0: "a" }));
 * ```
 */
export function isSameJson(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return Object.is(a, b);
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const entries = Object.entries(a);
  return entries.length === Object.keys(b).length &&
    entries.every(([key, value]) =>
      Object.hasOwn(b, key) && isSameJson(value, (b as typeof a)[key as never])
    );
}
