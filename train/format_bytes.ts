/**
 * Sizes in words.
 * @module
 */

/**
 * Bytes for people.
 *
 * @param bytes at least 0
 * @returns three digits and a binary unit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatBytes(1_976_131_072), "1.84 GiB");
 * ```
 */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  const value = bytes / 2 ** (10 * power);
  return `${power === 0 ? value : value.toPrecision(Math.max(3, String(Math.floor(value)).length))} ${
    units[power]
  }`;
}
