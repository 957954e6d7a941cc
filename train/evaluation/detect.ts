/**
 * Which evaluation a data file is for.
 * @module
 */
import { DataError, formatSource } from "../data/errors.ts";
import { readRows } from "../data/readers.ts";
import type { EvaluationTask } from "./task_names.ts";
import { isTextFile, isTextRecord } from "./text_files.ts";

/**
 * Tells a file's evaluation from its name and the keys of its first record: `chosen` or `rejected` are preferences,
 * `question` with `answer` is GSM8K, a `.txt`, `text`, and a prompt with one completion are texts to predict.
 *
 * @param path the file
 * @throws {DataError} when it cannot be read, or its keys are none of these
 */
export async function detectTask(path: string): Promise<EvaluationTask> {
  if (isTextFile(path)) return "perplexity";
  for await (const row of readRows(path)) {
    const has = (key: string) => Object.hasOwn(row.value, key);
    if (has("chosen") || has("rejected")) return "preference";
    if (has("question") && has("answer")) return "gsm8k";
    if (isTextRecord(row)) return "perplexity";
    const found = Object.keys(row.value).map((key) => `"${key}"`).join(", ") || "no keys";
    throw new DataError(
      `Cannot evaluate on ${
        formatSource(row.source)
      }: expected "chosen" and "rejected", "question" and "answer", ` +
        `"text", "prompt" and "completion", or "instruction" and "output", found ${found}`,
    );
  }
  throw new DataError(`Cannot evaluate on ${path}: expected records, found none`);
}
