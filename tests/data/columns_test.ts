import assert from "node:assert/strict";
import type { ColumnOptions } from "../../train/data/columns.ts";
import { encodePairs } from "../../train/data/encode.ts";
import { collectPreferences } from "../../train/data/records.ts";

const TEXTS = { prompt: "p", chosen: "1", rejected: "2" };
const collect = (values: Record<string, unknown>[], options?: ColumnOptions) =>
  collectPreferences(
    values.map((value, i) => ({ value: { ...TEXTS, ...value }, source: { file: "x.jsonl", line: i + 1 } })),
    "x.jsonl",
    options,
  );
const refuses = async (values: Record<string, unknown>[], message: string, options?: ColumnOptions) =>
  await assert.rejects(collect(values, options), { name: "DataError", message });

const BYTES = { encode: (text: string) => [...new TextEncoder().encode(text)], eosTokenId: 0 };

Deno.test("a margin and reference log-probs go with their record to its pair", async () => {
  const columns = { margin: 0, reference_chosen_logps: -1.5, reference_rejected_logps: 0 };
  const { records, columns: present } = await collect([columns, { ...columns, margin: -3 }]);
  assert.deepEqual(present, ["margin", "referenceChosen", "referenceRejected"]);
  assert.deepEqual(records.map((record) => record.margin), [0, -3]);
  const { pairs } = encodePairs(records, { tokenizer: BYTES, vocabSize: 256, maxLength: 8 });
  assert.deepEqual(
    pairs.map(({ margin, referenceChosen, referenceRejected }) => [
      margin,
      referenceChosen,
      referenceRejected,
    ]),
    [[0, -1.5, 0], [-3, -1.5, 0]],
  );
});

Deno.test("without columns, or with null ones, a pair has none", async () => {
  const { records, columns } = await collect([{ margin: null, ref_chosen_logps: null, score: 3 }, {}]);
  assert.deepEqual(columns, []);
  const { pairs } = encodePairs(records, { tokenizer: BYTES, vocabSize: 256, maxLength: 8 });
  assert.deepEqual(Object.keys(pairs[0]).toSorted(), ["chosen", "rejected", "source"]);
});

Deno.test("TRL's names and a margin column of any name are read", async () => {
  const values = [{ gap: 2, margin: "unused", ref_chosen_logps: -1, ref_rejected_logps: -2 }];
  const { records } = await collect(values, { marginColumn: "gap" });
  const { margin, referenceChosen, referenceRejected } = records[0];
  assert.deepEqual([margin, referenceChosen, referenceRejected], [2, -1, -2]);
  await refuses([{}], 'Cannot read x.jsonl:1: expected a number as "gap", found none', {
    marginColumn: "gap",
  });
});

Deno.test("columns of some records only, of other types, or by halves are refused", async () => {
  await refuses(
    [{ margin: 1 }, { margin: null }],
    'Cannot read x.jsonl:2: expected a "margin" as in x.jsonl:1, found none',
  );
  await refuses(
    [{}, { margin: 1 }],
    'Cannot read x.jsonl:2: expected no "margin" as in x.jsonl:1, found one',
  );
  await refuses(
    [{ margin: 1, chosen: "2" }, {}],
    'Cannot read x.jsonl:2: expected a "margin" as in x.jsonl:1, found none',
  );
  await refuses(
    [{ margin: "1" }],
    'Cannot read x.jsonl:1: expected a finite number as "margin", found "1"',
  );
  await refuses([{ margin: NaN }], 'Cannot read x.jsonl:1: expected a finite number as "margin", found NaN');
  await refuses(
    [{ margin: 1e39 }],
    'Cannot read x.jsonl:1: expected a number that f32 holds as "margin", found 1e+39',
  );
  await refuses(
    [{ margin: [1] }],
    'Cannot read x.jsonl:1: expected a finite number as "margin", found object',
  );
  await refuses(
    [{ ref_chosen_logps: -1 }],
    'Cannot read x.jsonl:1: expected "reference_rejected_logps" beside "reference_chosen_logps", found none',
  );
  await refuses(
    [{ ref_chosen_logps: 0.5, ref_rejected_logps: -1 }],
    'Cannot read x.jsonl:1: expected a log-prob of at most 0 as "reference_chosen_logps", found 0.5',
  );
  await refuses(
    [{ ref_chosen_logps: -1, reference_chosen_logps: -1, ref_rejected_logps: -1 }],
    'Cannot read x.jsonl:1: expected one of "reference_chosen_logps", "ref_chosen_logps", found both',
  );
});

Deno.test("reference log-probs of texts that do not fit are refused: they would be of other tokens", async () => {
  const logps = { ref_chosen_logps: -1, ref_rejected_logps: -2 };
  const { records } = await collect([{ ...logps, chosen: "123456" }]);
  for (const truncation of ["keep_start", "keep_end"] as const) {
    const options = { tokenizer: BYTES, vocabSize: 256, maxLength: 7, truncation };
    assert.throws(
      () => encodePairs(records, { ...options, overlong: "error" }),
      /found a longer one|completion shorter/,
    );
    assert.equal(encodePairs(records, { ...options, maxLength: 8 }).pairs.length, 1);
  }
});
