/**
 * Whether a checkpoint holds exactly the parameters of an architecture.
 * @module
 */
import type { Shape } from "../../engine/shape.ts";
import { CheckpointError, showFound } from "../errors.ts";
import type { Architecture } from "./architecture.ts";
import { weightDType, type WeightsReader } from "./safetensors.ts";

/**
 * Holds an open checkpoint against the configuration, before any weight is loaded: every parameter there, of the right
 * shape and of a readable type, and nothing else, because a tensor that is silently left out is a different model.
 *
 * Two kinds of tensor are passed over: those that the architecture ignores, and a stored output head where config.json
 * ties it to the embedding, if and only if the two are equal bit by bit (some tools save both; when they differ, it is
 * unclear which the file means).
 *
 * @param file The open checkpoint.
 * @param architecture By the config.json beside it.
 * @throws {CheckpointError} Naming the tensor and what is wrong with it.
 */
export async function checkWeights(file: WeightsReader, architecture: Architecture): Promise<void> {
  const { shapes, embedding, tiedHead, ignored } = architecture;
  const stored = storedNames(file.tensors.keys(), architecture);
  const expected = new Map([...shapes].map(([name, shape]) => [stored(name), shape]));
  for (const [name, shape] of expected) {
    const entry = file.tensors.get(name);
    if (entry === undefined) {
      throw refuse(file, name, { expected: `shape ${showFound(shape)}`, found: "no such tensor" });
    }
    checkShape(file, name, { shape });
    weightDType(entry);
  }
  for (const name of file.tensors.keys()) {
    if (expected.has(name) || ignored.test(name)) continue;
    if (name === tiedHead) {
      await checkTiedHead(file, { head: name, embedding: stored(embedding), shape: shapes.get(embedding)! });
    } else throw refuse(file, name, { expected: "no such tensor by config.json", found: "one" });
  }
}

/**
 * How a file calls the parameters: as the architecture does, or without the prefix of a model with a head, where no
 * tensor has it.
 *
 * @param tensors The names in the file.
 * @param architecture By the config.json beside it.
 * @returns A parameter's name to that in the file.
 * @example
 * ```ts
 * const names = storedNames(["wte.weight", "h.0.ln_1.weight"], { optionalPrefix: "transformer." });
 * if (names("transformer.wte.weight") !== "wte.weight") throw new Error("as in the published GPT-2");
 * if (names("lm_head.weight") !== "lm_head.weight") throw new Error("the head never has the prefix");
 * ```
 */
export function storedNames(
  tensors: Iterable<string>,
  { optionalPrefix }: Pick<Architecture, "optionalPrefix">,
): (name: string) => string {
  const hasPrefix = (name: string) => optionalPrefix !== undefined && name.startsWith(optionalPrefix);
  if (optionalPrefix === undefined || Array.from(tensors).some(hasPrefix)) return (name) => name;
  return (name) => hasPrefix(name) ? name.slice(optionalPrefix.length) : name;
}

function refuse(
  file: WeightsReader,
  name: string,
  what: { expected: string; found: string },
): CheckpointError {
  return new CheckpointError(
    `Cannot read ${file.path}: tensor ${
      JSON.stringify(name)
    }: expected ${what.expected}, found ${what.found}`,
  );
}

function checkShape(file: WeightsReader, name: string, options: { shape: Shape }): void {
  const expected = showFound(options.shape);
  const found = showFound(file.tensors.get(name)!.shape);
  if (found !== expected) throw refuse(file, name, { expected: `shape ${expected} by config.json`, found });
}

/** Rows compared at a time: 64 MiB at most for the widest of rows, 4 MiB for usual ones. */
const COMPARED_ROWS = 256;

async function checkTiedHead(
  file: WeightsReader,
  names: { head: string; embedding: string; shape: Shape },
): Promise<void> {
  const { head: headName, embedding: embeddingName, shape } = names;
  checkShape(file, headName, { shape });
  for (let first = 0; first < shape[0]; first += COMPARED_ROWS) {
    const rows = [first, Math.min(first + COMPARED_ROWS, shape[0])] as const;
    const [head, embedding] = [
      await file.readStored(headName, rows),
      await file.readStored(embeddingName, rows),
    ];
    if (head.dtype === embedding.dtype && head.bytes.every((byte, i) => byte === embedding.bytes[i])) {
      continue;
    }
    const found = `other values between rows ${rows[0]} and ${rows[1]}`;
    throw refuse(file, headName, {
      expected: `the values of ${embeddingName}, as tie_word_embeddings is true`,
      found,
    });
  }
}
