/**
 * Where a JSON text goes wrong. JSON.parse tells the position only in some messages and in words that change between
 * versions; a user with a 2 MB file needs the line every time.
 * @module
 */

/** The first place where a text stops being JSON. */
export interface JsonErrorPosition {
  /** Offset in UTF-16 code units, from 0; the text's length when it ends too early. */
  offset: number;
  /** Line, from 1. */
  line: number;
  /** Column in UTF-16 code units, from 1. */
  column: number;
  /** What could have stood there. */
  expected: string;
  /** What stands there, quoted, or "the end of the text". */
  found: string;
}

/** A walk over the text: where it stands, the brackets still open, and what may come next. */
interface Scan {
  text: string;
  offset: number;
  closers: string[];
  next: "value" | "value or ]" | "key" | "key or }" | ":" | "comma" | "end";
}

const SPACE = /[ \t\r\n]*/y;
const LITERAL = /true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
// deno-lint-ignore no-control-regex -- JSON forbids them in strings
const PLAIN_CHARACTERS = /[^"\\\u0000-\u001f]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/**
 * Find the first syntax error of a JSON text.
 *
 * @param text the text that JSON.parse refused
 * @returns the error's place, or undefined for valid JSON
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const error = findJsonError('[1,\n 2,]');
 * assert.equal(`${error?.line}:${error?.column}`, "2:4");
 * ```
 */
export function findJsonError(text: string): JsonErrorPosition | undefined {
  const scan: Scan = { text, offset: 0, closers: [], next: "value" };
  while (true) {
    scan.offset = matchEnd(SPACE, scan)!;
    if (scan.next === "end" && scan.offset === text.length) return undefined;
    const expected = step(scan);
    if (expected !== undefined) return describe(text, scan.offset, expected);
  }
}

/** Walk over one token. Returns what was expected instead when the text is wrong at `scan.offset`. */
function step(scan: Scan): string | undefined {
  switch (scan.next) {
    case "end":
      return "the end of the text";
    case "comma":
      return stepComma(scan);
    case ":":
      if (scan.text[scan.offset] !== ":") return '":"';
      return advance(scan, "value");
    case "key":
    case "key or }":
      return stepKey(scan);
    default:
      return stepValue(scan);
  }
}

function advance(scan: Scan, next: Scan["next"]): undefined {
  scan.offset++;
  scan.next = next;
}

function afterValue(scan: Scan): Scan["next"] {
  return scan.closers.length > 0 ? "comma" : "end";
}

function close(scan: Scan): undefined {
  scan.closers.pop();
  return advance(scan, afterValue(scan));
}

function stepComma(scan: Scan): string | undefined {
  const character = scan.text[scan.offset];
  const closer = scan.closers.at(-1);
  if (character === closer) return close(scan);
  if (character !== ",") return `"," or "${closer}"`;
  return advance(scan, closer === "]" ? "value" : "key");
}

function stepKey(scan: Scan): string | undefined {
  const character = scan.text[scan.offset];
  if (character === "}" && scan.next === "key or }") return close(scan);
  if (character !== '"') return "a key in double quotes";
  scan.next = ":";
  return stepString(scan);
}

function stepValue(scan: Scan): string | undefined {
  const character = scan.text[scan.offset];
  if (character === "]" && scan.next === "value or ]") return close(scan);
  if (character === "[" || character === "{") {
    scan.closers.push(character === "[" ? "]" : "}");
    return advance(scan, character === "[" ? "value or ]" : "key or }");
  }
  scan.next = afterValue(scan);
  if (character === '"') return stepString(scan);
  const end = matchEnd(LITERAL, scan);
  if (end === undefined) return "a value";
  scan.offset = end;
}

function stepString(scan: Scan): string | undefined {
  scan.offset++;
  while (true) {
    scan.offset = matchEnd(PLAIN_CHARACTERS, scan)!;
    const character = scan.text[scan.offset];
    if (character === '"') {
      scan.offset++;
      return undefined;
    }
    if (character !== "\\") return "the rest of a string and its closing quote";
    const end = matchEnd(ESCAPE, scan);
    if (end === undefined) return "a valid escape";
    scan.offset = end;
  }
}

/** Where a sticky pattern's match at the present offset ends, or undefined. */
function matchEnd(pattern: RegExp, scan: Scan): number | undefined {
  pattern.lastIndex = scan.offset;
  return pattern.test(scan.text) ? pattern.lastIndex : undefined;
}

function describe(text: string, offset: number, expected: string): JsonErrorPosition {
  const before = text.slice(0, offset);
  const found = offset < text.length
    ? JSON.stringify(String.fromCodePoint(text.codePointAt(offset)!))
    : "the end of the text";
  const lineStart = before.lastIndexOf("\n") + 1;
  return { offset, line: before.split("\n").length, column: offset - lineStart + 1, expected, found };
}
