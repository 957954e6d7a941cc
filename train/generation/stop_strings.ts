/**
 * Stop strings in text that comes in pieces: what may be the beginning of one is held back.
 * @module
 */

/** Passes text on up to the first stop string. */
export interface StopStrings {
  /** Whether one came: nothing is passed on any more. */
  readonly isStopped: boolean;
  /**
   * Takes the next piece of text.
   *
   * @param text any
   * @returns what can be passed on
   */
  push(text: string): string;
  /**
   * Ends the text.
   *
   * @returns what was held back
   */
  end(): string;
}

/**
 * Makes a filter.
 *
 * @param strings none of them empty; none at all passes everything on
 * @returns the filter
 * @throws {RangeError} when one is empty
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const stop = createStopStrings(["\n\n", "User:"]);
 * assert.deepEqual(["Yes.\n", "No. Us", "er: and"].map((piece) => stop.push(piece)), ["Yes.", "\nNo. ", ""]);
 * assert(stop.isStopped);
 * ```
 */
export function createStopStrings(strings: readonly string[]): StopStrings {
  if (strings.includes("")) throw new RangeError("Cannot stop at a string: expected text, found none");
  let held = "";
  let isStopped = false;
  return {
    get isStopped() {
      return isStopped;
    },
    push(text) {
      if (isStopped) return "";
      held += text;
      const starts = strings.map((one) => held.indexOf(one)).filter((start) => start >= 0);
      isStopped = starts.length > 0;
      const end = isStopped ? Math.min(...starts) : held.length - longestBeginning(held, strings);
      const passed = held.slice(0, end);
      held = isStopped ? "" : held.slice(end);
      return passed;
    },
    end() {
      const rest = held;
      held = "";
      return rest;
    },
  };
}

/** Length of the longest end of a text that one of the strings begins with. */
function longestBeginning(text: string, strings: readonly string[]): number {
  const longest = strings.reduce((most, one) => Math.max(most, one.length - 1), 0);
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    if (strings.some((one) => one.startsWith(text.slice(text.length - length)))) return length;
  }
  return 0;
}
