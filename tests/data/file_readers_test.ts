/** Packed and columnar files, with files made by fixtures/make_parquet.py. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { DataError } from "../../train/data/errors.ts";
import { readRows } from "../../train/data/readers.ts";
import type { Row } from "../../train/data/rows.ts";

const FIXTURES = fileURLToPath(new URL("./fixtures", import.meta.url));
const fixture = (name: string) => join(FIXTURES, name);

/** The rows of a file of these bytes; in errors the folder's name is cut off. */
async function rowsOf(name: string, content: Uint8Array): Promise<Row[]> {
  const folder = await Deno.makeTempDir();
  const path = join(folder, name);
  try {
    await Deno.writeFile(path, content);
    return await Array.fromAsync(readRows(path));
  } catch (error) {
    assert.ok(error instanceof DataError, String(error));
    throw new DataError(error.message.replaceAll(path, name));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const refuses = (name: string, options: { content: Uint8Array; message: string | RegExp }) =>
  assert.rejects(rowsOf(name, options.content), { name: "DataError", message: options.message });

Deno.test("gzip files give the rows of what is packed, of every member, with the places of the unpacked text", async () => {
  const two = new Uint8Array([...gzipSync('{"a": 1}\n\n{"a"'), ...gzipSync(': "é"}\n')]);
  const rows = await rowsOf("x.jsonl.gz", two);
  assert.deepEqual(rows.map((row) => [row.value.a, row.source.line]), [[1, 1], ["é", 3]]);
  const array = await rowsOf("x.JSON.GZ", gzipSync('[{"a": 1}, {"a": 2}]'));
  assert.deepEqual(array.map((row) => [row.value.a, row.source.index]), [[1, 0], [2, 1]]);
});

Deno.test("gzip files that are cut off, damaged or none are refused by name", async () => {
  const whole = gzipSync('{"a": 1}\n'.repeat(500));
  const damage = /^Cannot read x\.jsonl\.gz: expected a whole gzip file, found damage: .+$/;
  await refuses("x.jsonl.gz", { content: whole.subarray(0, 30), message: damage });
  await refuses("x.jsonl.gz", { content: whole.subarray(0, -4), message: damage });
  await refuses("x.jsonl.gz", { content: new TextEncoder().encode('{"a": 1}\n'), message: damage });
  await refuses("x.json.gz", {
    content: gzipSync(""),
    message: /expected an array of records, found only blanks/,
  });
  await refuses("x.jsonl.gz", {
    content: gzipSync("\n"),
    message: "Cannot read x.jsonl.gz: expected records, found none",
  });
});

Deno.test("a reader that stops early leaves no file open", async () => {
  const folder = await Deno.makeTempDir();
  const path = join(folder, "x.jsonl.gz");
  await Deno.writeFile(path, gzipSync('{"a": 1}\n'.repeat(200_000)));
  for await (const row of readRows(path)) {
    assert.equal(row.source.line, 1);
    break;
  }
  for await (const row of readRows(fixture("pairs_none.parquet"))) {
    assert.equal(row.source.index, 0);
    break;
  }
  await Deno.remove(folder, { recursive: true });
});

for (const compression of ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]) {
  Deno.test(`a Parquet file packed by ${compression} gives its rows over three row groups`, async () => {
    const rows = await Array.fromAsync(readRows(fixture(`pairs_${compression}.parquet`)));
    assert.deepEqual(rows.map((row) => row.source.index), [0, 1, 2, 3, 4, 5, 6]);
    assert.deepEqual(rows[2].value, { prompt: "Q2: 1+2=", chosen: "3 é", rejected: "4", margin: 1, id: 2 });
    assert.equal(rows[3].value.rejected, null);
  });
}

for (const version of [1, 2]) {
  Deno.test(`every encoding of pages is read, in their version ${version}`, async () => {
    const rows = await Array.fromAsync(readRows(fixture(`encodings_${version}.parquet`)));
    const expected = Array.from({ length: 200 }, (_, i) => ({
      prompt: `Question ${i}: 1+${i}=`,
      chosen: i % 7 ? `${i + 1}` : null,
      rejected: `${i + 2}`,
      margin: i / 2,
      id: i ** 3 - 1000,
      small: i % 5,
      label: i % 3 === 0,
      same: "x",
      none: null,
      tags: i % 5 ? Array(i % 4).fill(`${i}`) : null,
    }));
    assert.deepEqual(rows.map((row) => row.value), expected);
  });
}

Deno.test("lists of structs are lists of messages", async () => {
  const rows = await Array.fromAsync(readRows(fixture("labels.parquet")));
  assert.deepEqual(rows.map((row) => row.value), [
    {
      prompt: [{ role: "user", content: "1+1?" }],
      completion: [{ role: "assistant", content: "2" }],
      label: true,
    },
    {
      prompt: [{ role: "system", content: "Add." }, { role: "user", content: "2+2?" }],
      completion: [{ role: "assistant", content: "5" }],
      label: false,
    },
  ]);
});

Deno.test("Parquet files that are cut off, damaged, empty or none are refused by name", async () => {
  const whole = await Deno.readFile(fixture("pairs_gzip.parquet"));
  const other = "Cannot read x.parquet: expected a Parquet file, whole and not encrypted, found other bytes";
  await refuses("x.parquet", { content: whole.subarray(0, -1), message: other });
  await refuses("x.parquet", { content: whole.subarray(0, 9), message: other });
  await refuses("x.parquet", { content: new TextEncoder().encode('{"a": 1}\n'), message: other });
  const data = whole.slice();
  data.fill(0xff, 40, 60);
  await refuses("x.parquet", {
    content: data,
    message: /^Cannot read x\.parquet: expected a whole Parquet file, found damage in rows 0 to 2: [^\n]+$/,
  });
  const footer = whole.slice();
  const start = footer.length - 8 - new DataView(footer.buffer).getUint32(footer.length - 8, true);
  footer.fill(0xff, start, start + 60);
  await refuses("x.parquet", { content: footer, message: /^Cannot read x\.parquet: expected [^\n]+$/ });
  await refuses("x.parquet", {
    content: await Deno.readFile(fixture("empty.parquet")),
    message: "Cannot read x.parquet: expected records, found none",
  });
});

Deno.test("files of other kinds are refused", async () => {
  for (const name of ["x.csv", "x.gz", "x.parquet.gz", "x"]) {
    await refuses(name, {
      content: new Uint8Array([1]),
      message: /expected a \.json, \.jsonl, \.json\.gz, /,
    });
  }
});
