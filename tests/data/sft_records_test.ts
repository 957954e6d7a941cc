import assert from "node:assert/strict";
import { join } from "node:path";
import { readCompletions } from "../../train/data/sft_records.ts";
import { instructionPrompt } from "../../train/data/records.ts";
import { temporaryFolder } from "../tiny_model.ts";

async function read(...records: unknown[]) {
  const path = join(temporaryFolder(), "sft.jsonl");
  await Deno.writeTextFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  return await readCompletions(path);
}

Deno.test("completions come with a prompt, or with an instruction", async () => {
  const [plain, instruction, other] = await read(
    { prompt: "Q:", completion: " A", score: 1 },
    { instruction: "Count.", input: "", output: "1" },
    { instruction: "Fix it.", input: "teh", output: "the" },
  );
  assert.deepEqual([plain.prompt, plain.completion, plain.source.line], ["Q:", " A", 1]);
  assert.deepEqual([instruction.prompt, instruction.completion], [instructionPrompt("Count."), "1"]);
  assert.equal(other.prompt, instructionPrompt("Fix it.", "teh"));
});

Deno.test("records of another form, without text, or none at all are refused", async () => {
  const name = "DataError";
  await assert.rejects(read({ prompt: "Q:", chosen: "A" }), {
    name,
    message:
      /sft\.jsonl:1: expected texts under "prompt" and "completion", or "instruction" and "output", found nothing under "completion"$/,
  });
  await assert.rejects(read({ prompt: "Q:", completion: 3 }), {
    name,
    message: /found no text under "completion"$/,
  });
  await assert.rejects(read({ prompt: "Q:", completion: " " }), { name, message: /found a blank one$/ });
  await assert.rejects(read(), { name });
});
