/**
 * YAML 1.2 text to a value, as strict as the JSON that it stands for: one document, keys that are texts and come once, no
 * tags but the standard ones, few aliases.
 * @module
 */
// Loaded when the first YAML file is read: it takes as long as all the rest of the command line.
import defer * as yaml from "yaml";
import type { Alias, Document, YAMLError } from "yaml";
import { ConfigError } from "./errors.ts";

/** Aliases of aliases may stand for more than fits memory. */
const MAX_ALIASES = 100;

/** A place in a text, counted from 1. */
export interface TextPosition {
  readonly line: number;
  readonly column: number;
}

/** What a YAML text holds. */
export interface YamlText {
  readonly value: unknown;
  /** Where a nested key stands, or the last of its parents that stands anywhere. */
  readonly positionOf: (keys: readonly string[]) => TextPosition | undefined;
}

/**
 * Parses a YAML text.
 *
 * @param text the file's content
 * @param path how errors name the file
 * @throws {ConfigError} naming file, line and column
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { value, positionOf } = parseYaml("beta: 5e-1\nspo:\n  solver: penalty\n", "run.yaml");
 * assert.deepEqual(value, { beta: 0.5, spo: { solver: "penalty" } });
 * assert.deepEqual(positionOf(["spo", "solver"]), { line: 3, column: 3 });
 * ```
 */
export function parseYaml(text: string, path: string): YamlText {
  const lines = new yaml.LineCounter();
  const positionAt = (offset: number): TextPosition => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const where = (offset: number) => {
    const { line, column } = positionAt(offset);
    return `${path}:${line}:${column}`;
  };
  try {
    const document = yaml.parseDocument(text, {
      ...{ version: "1.2", schema: "core", stringKeys: true, strict: true },
      ...{ lineCounter: lines, prettyErrors: false, logLevel: "error", resolveKnownTags: false },
    });
    const fault = document.errors[0] ?? document.warnings[0];
    if (fault) throw describeFault(fault, { text, where: where(fault.pos[0]) });
    const loose = findLooseAlias(document);
    if (loose) {
      const place = where(loose.range?.[0] ?? 0);
      throw new ConfigError(`Cannot read ${place}: expected an anchor &${loose.source} before, found none`);
    }
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    return {
      value,
      positionOf(keys) {
        const offset = offsetOf(document, keys);
        return offset === undefined ? undefined : positionAt(offset);
      },
    };
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`Cannot read ${path}: malformed YAML: ${describeExcess(cause as Error)}`, {
      cause,
    });
  }
}

function describeFault(
  { code, message, pos: [start] }: YAMLError,
  { text, where }: { text: string; where: string },
): ConfigError {
  if (code === "DUPLICATE_KEY") {
    const key = text.slice(start, start + 200).split(/[:\r\n]/, 1)[0].trim();
    return new ConfigError(`Cannot use ${where}: key ${key}: expected it once, found it twice`);
  }
  if (code === "MULTIPLE_DOCS") {
    return new ConfigError(`Cannot read ${where}: expected one YAML document, found another`);
  }
  return new ConfigError(`Cannot read ${where}: malformed YAML: ${message.split("\n", 1)[0]}`);
}

/** The first alias without an anchor, among those that may be there. */
function findLooseAlias(document: Document.Parsed): Alias.Parsed | undefined {
  let loose: Alias.Parsed | undefined;
  let count = 0;
  yaml.visit(document, {
    Alias(_, alias) {
      count++;
      if (alias.resolve(document) === undefined) loose = alias as Alias.Parsed;
      return loose || count >= MAX_ALIASES ? yaml.visit.BREAK : undefined;
    },
  });
  return loose;
}

function describeExcess(error: Error): string {
  if (error instanceof RangeError) return "expected few levels, found too many";
  return /alias count/i.test(error.message)
    ? `expected aliases that stand for at most ${MAX_ALIASES} values, found more`
    : error.message;
}

function offsetOf(document: Document.Parsed, keys: readonly string[]): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const name of keys) {
    if (!yaml.isMap(node)) break;
    const pair = node.items.find(({ key }) => yaml.isScalar(key) && String(key.value) === name);
    if (pair === undefined) break;
    offset = yaml.isScalar(pair.key) ? pair.key.range?.[0] : undefined;
    node = pair.value;
  }
  return offset;
}
