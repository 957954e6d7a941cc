/**
 * Texts from outside in a model card: as YAML and as Markdown that hold them and nothing more.
 * @module
 */

/** What JSON leaves as it is and YAML may not hold, or takes for a line's end. */
const UNPRINTABLE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;
/** What would end a line of Markdown, or could be seen by no one. */
// deno-lint-ignore no-control-regex -- they are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/**
 * A text as a double-quoted scalar of YAML 1.2: what JSON writes, with what YAML cannot hold escaped.
 *
 * @param text any text
 * @example
 * ```ts
 * if (yamlText('a: "b"\n---') !== '"a: \\"b\\"\\n---"') throw new Error("one line, quoted");
 * ```
 */
export function yamlText(text: string): string {
  return JSON.stringify(text.toWellFormed()).replaceAll(UNPRINTABLE, escaped);
}

/**
 * A text as a code span of Markdown, on one line.
 *
 * @param text any text
 * @example
 * ```ts
 * if (codeSpan("a`b\n") !== "``a`b\\u000a``") throw new Error("a longer fence, no line's end");
 * ```
 */
export function codeSpan(text: string): string {
  const line = text.toWellFormed().replaceAll(CONTROL, escaped);
  const fence = "`".repeat(longestRun(line) + 1);
  // Markdown takes one space from each side.
  const pad = line === "" || /^[` ]|[` ]$/.test(line) ? " " : "";
  return `${fence}${pad}${line}${pad}${fence}`;
}

/**
 * A value as a block of JSON, its keys by name: the settings of a run that goes on come in another order.
 *
 * @param value what JSON can hold
 */
export function jsonBlock(value: unknown): string {
  const text = JSON.stringify(value, byName, 2);
  const fence = "`".repeat(Math.max(3, longestRun(text) + 1));
  return `${fence}json\n${text}\n${fence}`;
}

function byName(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function longestRun(text: string): number {
  return Math.max(0, ...Array.from(text.matchAll(/`+/g), ([run]) => run.length));
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** An absolute path of any system, one from a home folder, a URL of a file, or one that leaves the current folder. */
const PRIVATE = /^(?:[A-Za-z]:)?[\\/]|^~|^file:|(?:^|[\\/])\.\.(?:[\\/]|$)/;

/**
 * A path as a card may show it: as it was written, or its last part alone where it says how folders are named here.
 *
 * @param path of a file or folder, or a name on the hub
 * @example
 * ```ts
 * if (publicPath("/home/ada/pairs.jsonl") !== "pairs.jsonl") throw new Error("no one's folders");
 * if (publicPath("data/pairs.jsonl") !== "data/pairs.jsonl") throw new Error("as it was written");
 * ```
 */
export function publicPath(path: string): string {
  if (!PRIVATE.test(path)) return path;
  return path.split(/[\\/]/).findLast((part) => part !== "") ?? path;
}
