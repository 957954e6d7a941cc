/** docs/data.md says what the readers do. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { detectCompletionForm } from "../../train/data/completion_records.ts";
import { COUNT_MEANINGS } from "../../train/data/encode_counts.ts";
import { readLabelled } from "../../train/data/labelled_records.ts";
import { readPreferences } from "../../train/data/preference_files.ts";
import { readCompletions } from "../../train/data/sft_records.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { succeed } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

const TEXT = readFileSync(new URL("../../docs/data.md", import.meta.url), "utf8");
const flat = (text: string) => text.replaceAll(/\s+/g, " ");

/** Every example with the form that its paragraph begins with. */
const EXAMPLES = [...TEXT.matchAll(/^`([a-z]+)`:[^`]*(?:`[^`]+`[^`]*)*?```jsonl\n(.*)\n```$/gm)];

Deno.test("every example of docs/data.md is read as the form that it stands for, and every form has one", async () => {
  const path = join(temporaryFolder(), "example.jsonl");
  const forms: string[] = [];
  for (const [, form, line] of EXAMPLES) {
    await Deno.writeTextFile(path, line);
    const own = detectCompletionForm(JSON.parse(line));
    const data = own === undefined
      ? await readPreferences(path)
      : own === "labelled"
      ? await readLabelled(path)
      : await readCompletions(path);
    assert.deepEqual([data.form, data.records.length], [form, 1], line);
    forms.push(form);
  }
  const preferences = ["prompt", "transcript", "instruction", "messages", "conversations", "sharegpt"];
  const others = ["labelled", "completion", "dialogue", "turns", "text", "answer", "question"];
  assert.deepEqual(forms, [...preferences, ...others]);
});

Deno.test("docs/data.md names every reason for which a record is left out or changed", () => {
  const reasons = [
    ...[
      "missingChosen",
      "missingRejected",
      "missingCompletion",
      "identical",
      "emptyCompletion",
      "emptyPrompt",
    ],
    ...["noCommonPrompt", "laterTurn", "noAssistantTurn"],
  ];
  const code = ["forms", "completion_records", "conversations"].map((name) =>
    readFileSync(new URL(`../../train/data/${name}.ts`, import.meta.url), "utf8")
  ).join();
  for (const reason of reasons) {
    assert.ok(TEXT.includes(`\`${reason}\``), reason);
    assert.ok(code.includes(`"${reason}"`), `${reason} is still a reason`);
  }
  for (const meaning of Object.values(COUNT_MEANINGS)) {
    assert.ok(flat(TEXT).includes(`\`${meaning.replace("left out: ", "")}\``), meaning);
  }
});

testWithSharedData("docs/data.md shows what inspect prints", async () => {
  const data = join(SHARED_DATA, "hh-rlhf/helpful-base.split-train.first1854.jsonl");
  const flags = ["--model", join(SHARED_DATA, "tokenizers/gpt2"), "--data", data, "--max-length", "512"];
  const printed = await succeed("inspect", flags);
  // The width of a column depends on the path.
  const withoutRules = (text: string) =>
    flat(text.replaceAll(data, "helpful-base.jsonl").replaceAll(/-{2,}/g, "-"));
  const shown = TEXT.slice(TEXT.indexOf("    file "), TEXT.indexOf("Counts are of records"));
  const lines = shown.split("\n").map((line) => line.slice(4)).join("\n");
  assert.equal(withoutRules(lines).trim(), withoutRules(printed).trim());
});
