/** The readers on published preference data. It is no part of the project: without it these tests are skipped, visibly. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { encodePairs } from "../../train/data/encode.ts";
import type { PreferenceRecord } from "../../train/data/records.ts";
import { readPreferences } from "../../train/data/preference_files.ts";
import { loadTokenizer } from "../../train/data/tokenizer_folder.ts";

const SHARED = Deno.env.get("KEEL_SHARED_DATA") ??
  fileURLToPath(new URL("../../../shared/data", import.meta.url));
const RASBT = join(SHARED, "preference", "rasbt.instruction-data-with-preference.json");
const SHAREGPT = join(SHARED, "preference", "llamafactory.dpo_en_demo.json");
const HH = join(SHARED, "hh-rlhf", "helpful-base.split-train.first1854.jsonl");

const dataTest = (name: string, options: { file: string; fn: () => Promise<void> }) => {
  const present = existsSync(options.file);
  Deno.test({
    name: present ? name : `${name} (skipped: no ${options.file})`,
    ignore: !present,
    fn: options.fn,
  });
};

/** UTF-8 bytes: a tokenizer that knows every text. */
const BYTES = { encode: (text: string) => [...new TextEncoder().encode(text)], eosTokenId: 256 };

/** The records of a file of texts. */
const textsOf = async (path: string) => {
  const data = await readPreferences(path);
  return { ...data, records: data.records as PreferenceRecord[] };
};

dataTest("1,100 instruction pairs are read, 6 of them identical", {
  file: RASBT,
  fn: async () => {
    const { records, form, skipped } = await textsOf(RASBT);
    assert.equal(form, "instruction");
    assert.equal(records.length, 1094);
    assert.equal(skipped.identical, 6);
    assert.equal(Object.values(skipped).reduce((sum, count) => sum + count), 6);
    assert.ok(records.every(({ prompt }) => prompt.startsWith("### Instruction:\n")));
    assert.ok(records.every(({ prompt }) => prompt.endsWith("\n\n### Response:\n")));
    assert.ok(records.some(({ prompt }) => prompt.includes("\n\n### Input:\n")));
    const { pairs, counts } = encodePairs(records, { tokenizer: BYTES, vocabSize: 257, maxLength: 4096 });
    assert.equal(pairs.length, 1094);
    assert.deepEqual(Object.values(counts), [0, 0, 0, 0, 0, 0]);
  },
});

dataTest("1,854 transcripts give 1,850 records, each prompt ending at an assistant's turn", {
  file: HH,
  fn: async () => {
    const { records, form, skipped, firstSkipped } = await textsOf(HH);
    assert.equal(form, "transcript");
    assert.equal(records.length, 1850);
    assert.equal(skipped.identical, 1);
    assert.equal(skipped.emptyCompletion, 3);
    assert.equal(Object.values(skipped).reduce((sum, count) => sum + count), 4);
    assert.equal(firstSkipped.identical?.line, 722);
    assert.equal(firstSkipped.emptyCompletion?.line, 121);
    for (const { prompt, chosen, rejected } of records) {
      assert.ok(prompt.startsWith("\n\nHuman:") && prompt.endsWith("\n\nAssistant:"));
      assert.ok(chosen.startsWith(" ") && rejected.startsWith(" "));
    }
  },
});

dataTest("prompt and completion rebuild each transcript exactly", {
  file: HH,
  fn: async () => {
    const { records } = await textsOf(HH);
    const lines = (await Deno.readTextFile(HH)).split("\n");
    for (const { prompt, chosen, rejected, source } of records) {
      assert.deepEqual(JSON.parse(lines[source.line! - 1]), {
        chosen: prompt + chosen,
        rejected: prompt + rejected,
      });
    }
  },
});

dataTest("300 ShareGPT conversations become messages", {
  file: SHAREGPT,
  fn: async () => {
    const { records, form } = await readPreferences(SHAREGPT);
    assert.deepEqual([records.length, form], [300, "sharegpt"]);
    const rows = JSON.parse(await Deno.readTextFile(SHAREGPT));
    const roles = new Map([["human", "user"], ["gpt", "assistant"], ["system", "system"]]);
    for (const [i, { prompt, chosen, rejected }] of records.entries()) {
      // deno-lint-ignore no-explicit-any -- the file's own form
      const turns = (list: any[]) =>
        list.map(({ from, value }) => ({ role: roles.get(from), content: value }));
      assert.deepEqual(prompt, turns(rows[i].conversations));
      assert.deepEqual([chosen, rejected], [turns([rows[i].chosen]), turns([rows[i].rejected])]);
    }
    assert.equal(
      records.filter(({ prompt }) => typeof prompt !== "string" && prompt[0].role === "system").length,
      80,
    );
  },
});

dataTest("they are encoded through a model's chat template", {
  file: SHAREGPT,
  fn: async () => {
    const { records } = await readPreferences(SHAREGPT);
    const tokenizer = await loadTokenizer(join(SHARED, "tokenizers", "minimind-6400"));
    const { vocabSize } = tokenizer;
    const { pairs, counts } = encodePairs(records, { tokenizer, vocabSize, maxLength: 8192 });
    assert.deepEqual([pairs.length, counts.truncated, counts.droppedEmpty], [300, 0, 0]);
    for (const { chosen, rejected } of pairs) {
      assert.deepEqual(chosen.promptIds, rejected.promptIds);
      for (const { completionIds } of [chosen, rejected]) {
        assert.equal(tokenizer.decode(completionIds).slice(-11), "<|im_end|>\n");
      }
    }
  },
});
