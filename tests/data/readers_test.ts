import assert from "node:assert/strict";
import { join } from "node:path";
import { DataError } from "../../train/data/errors.ts";
import { readRows } from "../../train/data/readers.ts";
import type { Row } from "../../train/data/rows.ts";

/** Write a file, read its rows, remove it. In errors, the folder's name is cut off. */
async function rowsOf(name: string, content: string | Uint8Array): Promise<Row[]> {
  const folder = await Deno.makeTempDir();
  const path = join(folder, name);
  try {
    await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    const rows = await Array.fromAsync(readRows(path));
    return rows.map((row) => ({ ...row, source: { ...row.source, file: name } }));
  } catch (error) {
    assert.ok(error instanceof DataError, String(error));
    throw new DataError(error.message.replace(path, name));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const refuses = (name: string, options: { content: string | Uint8Array; message: string }) =>
  assert.rejects(rowsOf(name, options.content), { name: "DataError", message: options.message });

Deno.test("a .json array gives its objects with their indices", async () => {
  const expected = [
    { value: { a: 1 }, source: { file: "x.json", index: 0 } },
    { value: { a: "é" }, source: { file: "x.json", index: 1 } },
  ];
  assert.deepEqual(await rowsOf("x.json", '[{"a": 1},\r\n {"a": "é"}]'), expected);
  assert.deepEqual(await rowsOf("x.json", '\uFEFF[{"a": 1}, {"a": "é"}]'), expected);
});

Deno.test("a .jsonl file gives its objects with their lines, past BOM, CRLF and blank lines", async () => {
  const rows = await rowsOf("x.JSONL", '\uFEFF{"a": 1}\r\n\r\n  \n {"a": "é"}\n{"a": 3}');
  assert.deepEqual(rows.map((row) => [row.value.a, row.source.line]), [[1, 1], ["é", 4], [3, 5]]);
});

Deno.test("lines longer than a read buffer, and characters split between two, are whole", async () => {
  const texts = [3, 70_001, 1, 150_003].map((length, i) => "é".repeat(length) + i);
  const rows = await rowsOf("x.jsonl", texts.map((text) => JSON.stringify({ text })).join("\n"));
  assert.deepEqual(rows.map((row) => row.value.text), texts);
});

Deno.test("malformed JSON is refused with line and column", async () => {
  await refuses("x.jsonl", {
    content: '{"a": 1}\n{"a": }\n',
    message: 'Cannot read x.jsonl:2:7: malformed JSON: expected a value, found "}"',
  });
  await refuses("x.jsonl", {
    content: '{"a": 1}\n\n{"a": "cut o',
    message:
      "Cannot read x.jsonl:3:13: malformed JSON: expected the rest of a string and its closing quote, " +
      "found the end of the text",
  });
  await refuses("x.json", {
    content: '[\n  {"a": 1}\n  {"a": 2}\n]',
    message: 'Cannot read x.json:3:3: malformed JSON: expected "," or "]", found "{"',
  });
});

Deno.test("JSON lines in a .json file, and an array in a .jsonl file, are told apart", async () => {
  await refuses("x.json", {
    content: '{"a": 1}\n{"a": 2}\n',
    message: 'Cannot read x.json:2:1: malformed JSON: expected the end of the text, found "{"; ' +
      "for one record per line, name the file .jsonl",
  });
  await refuses("x.jsonl", {
    content: '[\n{"a": 1}\n]',
    message: "Cannot read x.jsonl:1: expected one object per line, found an array; name the file .json",
  });
});

Deno.test("what is not an array of objects is refused", async () => {
  await refuses("x.json", {
    content: '{"data": [], "n": 0}',
    message: 'Cannot read x.json: expected an array of records, found object with keys "data", "n"',
  });
  await refuses("x.json", {
    content: "3",
    message: "Cannot read x.json: expected an array of records, found number",
  });
  await refuses("x.json", {
    content: '[{}, "b"]',
    message: "Cannot read x.json[1]: expected an object, found string",
  });
  await refuses("x.jsonl", {
    content: "{}\nnull\n",
    message: "Cannot read x.jsonl:2: expected an object, found null",
  });
});

Deno.test("empty files are refused", async () => {
  for (const name of ["x.json", "x.jsonl"]) {
    await refuses(name, {
      content: "",
      message: `Cannot read ${name}: expected records, found an empty file`,
    });
  }
  await refuses("x.json", {
    content: " \n",
    message: "Cannot read x.json: expected an array of records, found only blanks",
  });
  await refuses("x.json", { content: "[]", message: "Cannot read x.json: expected records, found none" });
  await refuses("x.jsonl", {
    content: "\n\r\n",
    message: "Cannot read x.jsonl: expected records, found none",
  });
});

Deno.test("bytes that are not UTF-8 are refused, with their line", async () => {
  const content = new Uint8Array([...new TextEncoder().encode('{"a": 1}\n{"a": "'), 0xe9, 0x22, 0x7d]);
  await refuses("x.jsonl", {
    content,
    message: "Cannot read x.jsonl:2: expected UTF-8 text, found other bytes",
  });
  await refuses("x.json", { content, message: "Cannot read x.json: expected UTF-8 text, found other bytes" });
});

Deno.test("a missing file, a directory and an unknown extension are refused", async () => {
  await assert.rejects(Array.fromAsync(readRows("no/such.json")), {
    name: "DataError",
    message: "Cannot read no/such.json: expected a readable file, found: no such file",
  });
  await refuses("x.csv", {
    content: "a,b",
    message:
      'Cannot read x.csv: expected a .json, .jsonl, .json.gz, .jsonl.gz or .parquet file, found extension ".csv"',
  });
  await refuses("x", {
    content: "{}",
    message:
      'Cannot read x: expected a .json, .jsonl, .json.gz, .jsonl.gz or .parquet file, found extension ""',
  });
  const folder = await Deno.makeTempDir({ suffix: ".json" });
  await assert.rejects(Array.fromAsync(readRows(folder)), {
    message: `Cannot read ${folder}: expected a file, found a directory`,
  });
  await Deno.remove(folder);
});

Deno.test("a reader that is left early closes its file", async () => {
  const folder = await Deno.makeTempDir();
  const path = join(folder, "x.jsonl");
  await Deno.writeTextFile(path, '{"a": 1}\n'.repeat(100_000));
  // Deno's resource check fails this test if the file stays open.
  for await (const row of readRows(path)) {
    assert.equal(row.source.line, 1);
    break;
  }
  await Deno.remove(folder, { recursive: true });
});
