/**
 * model.safetensors.index.json: which file of a checkpoint in several files holds which tensor.
 *
 * `{"metadata": {"total_size": bytes of all tensors}, "weight_map": {tensor: file}}`; the files lie beside it.
 *
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";
import { findDuplicateKey } from "./duplicate_keys.ts";

/** A checked index. */
export interface CheckpointIndex {
  /** Tensor -> name of the file beside the index that holds it, in the order of the index. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** Bytes of all tensors, where the index says it. */
  readonly totalBytes?: number;
}

const ENDING = ".safetensors";

const fileName = z.string(`the name of a ${ENDING} file`).refine(
  isPlainFileName,
  `the plain name of a ${ENDING} file beside the index`,
);

const indexSchema = z.object({
  metadata: z.object({
    total_size: z.number("a number of bytes").refine(
      (value) => Number.isSafeInteger(value) && value >= 0,
      "a non-negative integer below 2^53",
    ).optional(),
  }, "an object").optional(),
  weight_map: z.record(z.string(), fileName, "an object that names a file for each tensor"),
}, "an object of metadata and weight_map");

/**
 * Whether a name stays in the folder that it is looked up in. Separators of every system count, as does the colon, which
 * leads to another drive or stream on Windows. What a file of that name links to is its owner's affair: the hub's cache
 * is made of links.
 */
function isPlainFileName(name: string): boolean {
  return name.endsWith(ENDING) && name.length > ENDING.length && !/[/\\:\0]/.test(name);
}

/**
 * Parses and checks an index.
 *
 * @param text The JSON.
 * @param options.file Its name, for messages.
 * @returns The checked index.
 * @throws {CheckpointError} Naming the file and the key: not JSON, a key twice, a file name that leaves the folder.
 * @example
 * ```ts
 * const text = '{"metadata": {"total_size": 8}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}';
 * const { weightMap, totalBytes } = parseCheckpointIndex(text, { file: "model.safetensors.index.json" });
 * if (weightMap.get("w") !== "model-00001-of-00002.safetensors" || totalBytes !== 8) throw new Error("as written");
 * ```
 */
export function parseCheckpointIndex(text: string, options: { file: string }): CheckpointIndex {
  const { file } = options;
  const refuse = (key: readonly PropertyKey[], expected: string, found: string) =>
    new CheckpointError(
      `Cannot read ${file}: ${[...key.map(showKey), `expected ${expected}`].join(": ")}, found ${found}`,
    );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot read ${file}: expected JSON, found ${detail}`, { cause });
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate) throw refuse(duplicate, "one key of that name", "two");
  const result = indexSchema.safeParse(value);
  if (!result.success) {
    const { path, message } = result.error.issues[0];
    // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
    const found = path.reduce((inner: any, key) => inner?.[key], value);
    throw refuse(path, message, showFound(found));
  }
  const { metadata, weight_map } = result.data;
  const weightMap = new Map(Object.entries(weight_map));
  if (weightMap.size === 0) throw refuse(["weight_map"], "at least one tensor", "none");
  return { weightMap, totalBytes: metadata?.total_size };
}

/** Keys of the format as they are, names of tensors in quotes. */
function showKey(key: PropertyKey): string {
  return /^(metadata|total_size|weight_map)$/.test(String(key)) ? String(key) : JSON.stringify(String(key));
}

/**
 * Prints an index as transformers does: two spaces, tensors sorted by name, a line break at the end.
 *
 * @param index Every tensor's file, and the bytes of all tensors.
 * @returns The JSON.
 * @example
 * ```ts
 * const text = formatCheckpointIndex({ weightMap: new Map([["w", "model-00001-of-00002.safetensors"]]), totalBytes: 8 });
 * if (!text.startsWith('{\n  "metadata": {\n    "total_size": 8\n')) throw new Error("the size comes first");
 * ```
 */
export function formatCheckpointIndex({ weightMap, totalBytes }: Required<CheckpointIndex>): string {
  // Joined by hand: a JavaScript object would move names that look like numbers to the front.
  const lines = [...weightMap].sort(([a], [b]) => a < b ? -1 : 1).map(([name, file]) =>
    `    ${JSON.stringify(name)}: ${JSON.stringify(file)}`
  );
  return `{\n  "metadata": {\n    "total_size": ${totalBytes}\n  },\n  "weight_map": {\n${
    lines.join(",\n")
  }\n  }\n}\n`;
}
