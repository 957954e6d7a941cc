/**
 * Damaged files and records: each is read, or refused by an InputError; nothing hangs, crashes, or takes memory that the
 * input does not justify.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { readLabelled } from "../../train/data/labelled_records.ts";
import { collectPreferences } from "../../train/data/records.ts";
import { readPreferences } from "../../train/data/preference_files.ts";
import { encodePairs } from "../../train/data/encode.ts";
import { detectCompletionForm, normalizeCompletion } from "../../train/data/completion_records.ts";
import { readRows } from "../../train/data/readers.ts";
import { readCompletions } from "../../train/data/sft_records.ts";
import { InputError } from "../../train/errors.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { assertClean, fuzz, type FuzzTarget, fuzzTest } from "../fuzz/harness.ts";
import { mutateBytes, mutateText, mutateValue } from "../fuzz/mutate.ts";

/** Every form of record. */
const RECORDS: Record<string, unknown>[] = [
  { prompt: "1+1=", chosen: "2", rejected: "3", margin: 0.5 },
  { instruction: "Add.", input: "1+1", output: "2", chosen: "2", rejected: "3" },
  { chosen: "\n\nHuman: Hi\n\nAssistant: Hello", rejected: "\n\nHuman: Hi\n\nAssistant: Go" },
  {
    prompt: [{ role: "user", content: "1+1?" }],
    chosen: [{ role: "assistant", content: "2" }],
    rejected: [{ role: "assistant", content: "3" }],
    tools: [{ type: "function" }],
  },
  {
    chosen: [{ role: "user", content: "1+1?" }, { role: "assistant", content: "2" }],
    rejected: [{ role: "user", content: "1+1?" }, { role: "assistant", content: "3" }],
  },
  {
    system: "Add.",
    conversations: [{ from: "human", value: "1+1?" }],
    chosen: { from: "gpt", value: "2" },
    rejected: { from: "gpt", value: "3" },
  },
  { prompt: "1+1=", completion: "2", label: true },
  { prompt: "1+1=", completion: "2" },
  { instruction: "Add.", input: "1+1", output: "2" },
  { messages: [{ role: "user", content: "1+1?" }, { role: "assistant", content: "2" }] },
  { conversations: [{ from: "human", value: "1+1?" }, { from: "gpt", value: "2" }] },
  { prompt: "1+1=", chosen: "2", rejected: "3", reference_chosen_logps: -1, reference_rejected_logps: -2 },
];

/** What every refusal of a reader says. */
const message = /^Cannot (read|use|encode) [^]*: /;

/** Reads a file as a kind of run does, or for its rows alone: any record then passes. */
async function readAs(path: string, use: number): Promise<void> {
  if (use === 0) await readPreferences(path);
  else if (use === 1) await readLabelled(path);
  else if (use === 2) await readCompletions(path);
  else await Array.fromAsync(readRows(path));
}

const USES = 6;

const lines = RECORDS.map((record) => JSON.stringify(record));

/** Some lines of one form, or of several. */
function someLines(random: () => number): string[] {
  const at = Math.floor(random() * lines.length);
  return random() < 0.8 ? Array(3).fill(lines[at]) : lines.slice(at, at + 3);
}

for (const [extension, seed] of [["jsonl", 1], ["json", 2]] as const) {
  const path = join(temporaryFolder(), `data.${extension}`);
  fuzzTest(`400 damaged .${extension} files`, {
    target: {
      message,
      async attempt(random, index) {
        const whole = someLines(random);
        const text = mutateText(extension === "json" ? `[${whole.join(",\n")}]` : whole.join("\n"), random);
        const bytes = random() < 0.2
          ? Uint8Array.from(text, (character) => character.charCodeAt(0))
          : new TextEncoder().encode(text);
        await Deno.writeFile(path, bytes);
        await readAs(path, index % USES);
      },
    },
    ...{ inputs: 400, seed, accepted: [20, 200] },
  });
}

const packedFolder = temporaryFolder();
fuzzTest("300 damaged gzip files, and texts that were damaged before they were packed", {
  target: {
    message,
    async attempt(random, index) {
      const isLines = random() < 0.5;
      const whole = someLines(random);
      const text = isLines ? whole.join("\n") : `[${whole.join(",")}]`;
      const packed = random() < 0.5
        ? mutateBytes(gzipSync(text), random)
        : gzipSync(mutateText(text, random));
      const path = join(packedFolder, `data.${isLines ? "jsonl" : "json"}.gz`);
      await Deno.writeFile(path, packed);
      await readAs(path, index % USES);
    },
  },
  ...{ inputs: 300, seed: 3, accepted: [10, 200] },
});

const FIXTURES = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"].map((name) => `pairs_${name}.parquet`);
const OTHERS = ["labels", "empty", "encodings_1", "encodings_2"].map((name) => `${name}.parquet`);
const PARQUET_FILES = [...FIXTURES, ...OTHERS].map((name) =>
  Deno.readFileSync(new URL(`fixtures/${name}`, import.meta.url))
);

const parquetPath = join(temporaryFolder(), "data.parquet");
fuzzTest("500 damaged Parquet files, of every compression", {
  target: {
    message,
    async attempt(random, index) {
      await Deno.writeFile(parquetPath, mutateBytes(PARQUET_FILES[index % PARQUET_FILES.length], random));
      await readAs(parquetPath, index % USES);
    },
  },
  ...{ inputs: 500, seed: 4, accepted: [20, 350] },
});

/** UTF-8 bytes: a tokenizer that knows every text. */
const BYTES = { encode: (text: string) => [...new TextEncoder().encode(text)], eosTokenId: 256 };

Deno.test("600 records with values of other types in any place", async () => {
  const source = { file: "made", index: 0 };
  let encoded = 0;
  const target: FuzzTarget = {
    ...{ name: "records", message },
    async attempt(random, index) {
      const value = mutateValue(RECORDS[index % RECORDS.length], random);
      const form = detectCompletionForm(value);
      if (form !== undefined && random() < 0.5) return void normalizeCompletion({ value, source }, form);
      const { records } = await collectPreferences([{ value, source }], "made");
      for (const record of records) {
        for (const side of [record.prompt, record.chosen, record.rejected]) {
          assert.ok(
            typeof side === "string" || (Array.isArray(side) && side.length > 0),
            JSON.stringify(value),
          );
        }
      }
      if (typeof records[0].prompt !== "string") return;
      encodePairs(records, { tokenizer: BYTES, vocabSize: 257, maxLength: 256, overlong: "drop" });
      encoded++;
    },
  };
  assertClean(await fuzz(target, { inputs: 600, seed: 5 }), [100, 500]);
  assert.ok(encoded > 20, `${encoded} encoded`);
});

Deno.test("of many keys, or long ones, a message names the beginning", async () => {
  const value = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`${index}`.repeat(1000), 1]));
  const source = { file: "made", index: 0 };
  await assert.rejects(collectPreferences([{ value, source }], "made"), (error: Error) => {
    assert.match(error.message, /found "0{40}\.\.\.", "1{40}\.\.\.".* and 42 more$/);
    return error instanceof InputError;
  });
});

Deno.test("a damaged column beside one that the schema does not have is one error, not the process's end", async () => {
  // The footer names every column once in its schema and then in each row group: there the third gets another name.
  const bytes = await Deno.readFile(new URL("fixtures/pairs_snappy.parquet", import.meta.url));
  const text = new TextDecoder("latin1").decode(bytes);
  const footer = bytes.length - 8 - new DataView(bytes.buffer).getUint32(bytes.length - 8, true);
  bytes[text.indexOf("rejected", text.indexOf("rejected", footer) + 1)] ^= 1;
  // The first column's data, right behind the magic number.
  bytes.fill(0xff, 4, 40);
  const path = join(temporaryFolder(), "data.parquet");
  await Deno.writeFile(path, bytes);
  await assert.rejects(readPreferences(path), /found damage in/);
});

Deno.test("a small file that unpacks to much stops at the limit of a text, or at its first wrong line", async () => {
  const path = join(temporaryFolder(), "bomb.jsonl.gz");
  // 64 MiB of blanks in one line are within the limit of a line: what is refused is that they are no record.
  await Deno.writeFile(path, gzipSync(new Uint8Array(2 ** 26).fill(32)));
  await assert.rejects(readPreferences(path), (error: Error) => error instanceof InputError);
});
