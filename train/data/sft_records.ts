/**
 * Records of one completion each, for supervised data beside preferences.
 * @module
 */
import * as z from "zod";
import type { CompletionExample } from "./encoded.ts";
import { DataError, formatSource } from "./errors.ts";
import { instructionPrompt } from "./forms.ts";
import { readRows, type Row } from "./readers.ts";

const PROMPT = z.looseObject({ prompt: z.string(), completion: z.string() });
const INSTRUCTION = z.looseObject({
  instruction: z.string(),
  input: z.string().nullish(),
  output: z.string(),
});

/**
 * Reads `{prompt, completion}` or `{instruction, input?, output}` records.
 *
 * @param path a file that `readRows` reads
 * @returns the examples, in the file's order
 * @throws {DataError} on a record of neither form, a blank text, or a file without records
 */
export async function readCompletions(path: string): Promise<CompletionExample[]> {
  const examples: CompletionExample[] = [];
  for await (const row of readRows(path)) examples.push(exampleOf(row));
  if (examples.length === 0) throw new DataError(`Cannot read ${path}: expected records, found none`);
  return examples;
}

function exampleOf({ value, source }: Row): CompletionExample {
  const isInstruction = Object.hasOwn(value, "instruction");
  const result = isInstruction ? INSTRUCTION.safeParse(value) : PROMPT.safeParse(value);
  if (!result.success) {
    const key = String(result.error.issues[0].path[0]);
    throw new DataError(
      `Cannot read ${
        formatSource(source)
      }: expected texts under "prompt" and "completion", or "instruction" and ` +
        `"output", found ${Object.hasOwn(value, key) ? "no text" : "nothing"} under "${key}"`,
    );
  }
  const text = (key: string) => String(result.data[key] ?? "");
  const [prompt, completion] = isInstruction
    ? [instructionPrompt(text("instruction"), text("input")), text("output")]
    : [text("prompt"), text("completion")];
  if (prompt.trim() === "" || completion.trim() === "") {
    throw new DataError(
      `Cannot read ${formatSource(source)}: expected a prompt and a completion, found a blank one`,
    );
  }
  return { prompt, completion, source };
}
