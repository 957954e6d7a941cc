import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { basename, join } from "node:path";
import { CheckpointError } from "../../train/errors.ts";
import { findDuplicateKey } from "../../train/models/duplicate_keys.ts";
import { openSafetensors } from "../../train/models/safetensors.ts";
import { type TensorSource, writeSafetensors } from "../../train/models/safetensors_write.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "keel-safetensors-" });
globalThis.addEventListener("unload", () => Deno.removeSync(FOLDER, { recursive: true }));

let files = 0;

/** Writes a file from a header (text, or a value to print as JSON), data bytes, and a length that may lie. */
function craft(header: unknown, dataBytes: number | Uint8Array = 0, length?: bigint): string {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  const json = header instanceof Uint8Array ? header : new TextEncoder().encode(text);
  const start = new Uint8Array(8);
  new DataView(start.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  const data = typeof dataBytes === "number" ? new Uint8Array(dataBytes) : dataBytes;
  const path = join(FOLDER, `${files++}.safetensors`);
  Deno.writeFileSync(path, new Uint8Array([...start, ...json, ...data]));
  return path;
}

async function refusal(path: string, name?: string): Promise<string> {
  let message = "";
  await assert.rejects(async () => {
    using file = await openSafetensors(path);
    if (name) await file.read(name, { finite: true });
  }, (error) => {
    assert(error instanceof CheckpointError, String(error));
    message = error.message;
    return true;
  });
  assert(message.startsWith(`Cannot read ${path}: `), message);
  return message.slice(`Cannot read ${path}: `.length);
}

/** Without the element-wise difference of deepEqual, which takes minutes on a megabyte. */
function assertSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(actual.length, expected.length);
  assert(Buffer.compare(actual, expected) === 0, "the bytes differ");
}

const f32 = (shape: unknown, start: unknown, end: unknown) => ({
  dtype: "F32",
  shape,
  data_offsets: [start, end],
});

const HOSTILE: [title: string, header: unknown, dataBytes: number, expected: string][] = [
  ["text that is not JSON", '{"w":', 0, "header: expected JSON, found Unexpected end of JSON input"],
  ["an array for an object", "[]", 0, 'header: expected { as the first character, found "["'],
  ["an empty header", "", 0, "header: expected { as the first character, found nothing"],
  ["a byte order mark", "\ufeff{}", 0, 'header: expected { as the first character, found "\ufeff"'],
  [
    "bytes that are not UTF-8",
    new Uint8Array([0x7b, 0xff, 0x7d]),
    0,
    "header: expected UTF-8, found other bytes",
  ],
  [
    "one name twice",
    '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    4,
    'tensor "w": expected one key of that name, found two',
  ],
  [
    "one key twice, one of them escaped",
    '{"w":{"dtype":"F32","shape":[1],"sh\\u0061pe":[1],"data_offsets":[0,4]}}',
    4,
    'tensor "w", shape: expected one key of that name, found two',
  ],
  [
    "a metadata key twice",
    '{"__metadata__":{"a":"1","a":"2"}}',
    0,
    "__metadata__, a: expected one key of that name, found two",
  ],
  ["metadata of numbers", { __metadata__: { step: 3 } }, 0, "__metadata__, step: expected a string, found 3"],
  [
    "metadata that is a list",
    { __metadata__: [] },
    0,
    "__metadata__: expected an object of strings, found []",
  ],
  [
    "a tensor that is null",
    { w: null },
    0,
    'tensor "w": expected an object of dtype, shape and data_offsets, found null',
  ],
  [
    "no dtype",
    { w: { shape: [1], data_offsets: [0, 4] } },
    4,
    'tensor "w", dtype: expected a type name, found nothing',
  ],
  [
    "an unknown dtype",
    { w: { dtype: "Q4_0", shape: [1], data_offsets: [0, 4] } },
    4,
    'tensor "w", dtype: expected an element type of the format, found "Q4_0"',
  ],
  [
    "no shape",
    { w: { dtype: "F32", data_offsets: [0, 4] } },
    4,
    'tensor "w", shape: expected a list of sizes, found nothing',
  ],
  [
    "a negative size",
    { w: f32([-1], 0, 4) },
    4,
    'tensor "w", shape, 0: expected a non-negative integer below 2^53, found -1',
  ],
  [
    "a broken size",
    { w: f32([2, 0.5], 0, 4) },
    4,
    'tensor "w", shape, 1: expected a non-negative integer below 2^53, found 0.5',
  ],
  [
    "a size in words",
    { w: f32(["1"], 0, 4) },
    4,
    'tensor "w", shape, 0: expected a non-negative integer, found "1"',
  ],
  [
    "a size beyond 2^53",
    '{"w":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}',
    4,
    'tensor "w", shape, 0: expected a non-negative integer below 2^53, found 9007199254740992',
  ],
  [
    "an infinite size",
    '{"w":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}',
    4,
    'tensor "w", shape, 0: expected a non-negative integer, found Infinity',
  ],
  [
    "sizes whose product overflows",
    { w: f32([2 ** 40, 2 ** 40, 0], 0, 0) },
    0,
    'tensor "w", shape: expected fewer than 2^47 elements, found [1099511627776, 1099511627776, 0]',
  ],
  [
    "three offsets",
    { w: { dtype: "F32", shape: [1], data_offsets: [0, 4, 8] } },
    4,
    'tensor "w", data_offsets: expected [start, end], found [0, 4, 8]',
  ],
  [
    "a negative offset",
    { w: f32([1], -4, 0) },
    4,
    'tensor "w", data_offsets, 0: expected a non-negative integer below 2^53, found -4',
  ],
  [
    "an end before the start",
    { w: f32([1], 4, 0) },
    4,
    'tensor "w", data_offsets: expected an end not before the start, found [4, 0]',
  ],
  [
    "an end outside the file",
    { w: f32([2], 0, 8) },
    4,
    'tensor "w", data_offsets: expected offsets within the 4 bytes of data, found [0, 8]',
  ],
  [
    "an overlap",
    { a: f32([2], 0, 8), b: f32([2], 4, 12) },
    12,
    'tensor "b", data_offsets: expected a start at 8, found [4, 12], which overlaps the tensor before',
  ],
  [
    "a hole between tensors",
    { a: f32([1], 0, 4), b: f32([1], 8, 12) },
    12,
    'tensor "b", data_offsets: expected a start at 4, found [8, 12], which leaves a hole',
  ],
  [
    "a hole in front",
    { a: f32([1], 4, 8) },
    8,
    'tensor "a", data_offsets: expected a start at 0, found [4, 8], which leaves a hole',
  ],
  [
    "bytes after the last tensor",
    { a: f32([1], 0, 4) },
    7,
    "data: expected 4 bytes, the end of the last tensor, found 7 bytes",
  ],
  [
    "too few bytes for the shape",
    { w: f32([2, 3], 0, 12) },
    12,
    'tensor "w", data_offsets: expected 24 bytes for F32 [2, 3], found 12 bytes',
  ],
  [
    "half a byte",
    { w: { dtype: "F4", shape: [3], data_offsets: [0, 1] } },
    1,
    'tensor "w", data_offsets: expected 1.5 bytes for F4 [3], found 1 bytes',
  ],
];

for (const [title, header, dataBytes, expected] of HOSTILE) {
  Deno.test(`a header is refused for ${title}`, async () => {
    assert.equal(await refusal(craft(header, dataBytes)), expected);
  });
}

Deno.test("a lying header length is refused before anything is read by it", async () => {
  const entry = { w: f32([1], 0, 4) };
  assert.equal(
    await refusal(craft(entry, 4, 2n ** 63n)),
    `header length: expected at most 100000000 bytes, found ${2n ** 63n}`,
  );
  assert.equal(
    await refusal(craft(entry, 4, 100_000_001n)),
    "header length: expected at most 100000000 bytes, found 100000001",
  );
  assert.equal(
    await refusal(craft("{}", 0, 3n)),
    "header length: expected at most the 2 bytes that follow, found 3",
  );
  const path = join(FOLDER, "short.safetensors");
  Deno.writeFileSync(path, new Uint8Array(5));
  assert.equal(await refusal(path), "header length: expected 8 bytes, found 5 bytes");
  Deno.writeFileSync(path, new Uint8Array(0));
  assert.equal(await refusal(path), "header length: expected 8 bytes, found 0 bytes");
});

Deno.test("a missing file and a folder are refused by name", async () => {
  assert.equal(await refusal(join(FOLDER, "none.safetensors")), "expected a file, found nothing");
  assert.equal(await refusal(FOLDER), "expected a file, found a folder");
});

Deno.test("types that are no weights are refused only when their tensor is asked for", async () => {
  const header = {
    ids: { dtype: "I64", shape: [1], data_offsets: [4, 12] },
    mask: { dtype: "BOOL", shape: [2, 1], data_offsets: [12, 14] },
    weight: f32([], 0, 4),
  };
  const path = craft(header, new Uint8Array([0, 0, 128, 63, ...new Array(10).fill(0)]));
  using file = await openSafetensors(path);
  assert.deepEqual([...await file.read("weight")], [1]);
  assert.equal(await refusal(path, "ids"), 'tensor "ids", dtype: expected F32, F16 or BF16, found I64');
  assert.equal(await refusal(path, "mask"), 'tensor "mask", dtype: expected F32, F16 or BF16, found BOOL');
  assert.equal(await refusal(path, "w"), 'expected tensor "w", found 3 others');
});

Deno.test("a file cut short after it was opened is an error, and leaves the other reads whole", async () => {
  const path = craft({ a: f32([1], 0, 4), b: f32([2], 4, 12) }, 12);
  using file = await openSafetensors(path);
  const size = Deno.statSync(path).size;
  Deno.truncateSync(path, size - 4);
  const [b, a] = await Promise.allSettled([file.read("b"), file.read("a")]);
  assert.equal(a.status, "fulfilled");
  assert.match(
    String(b.status === "rejected" && b.reason.message),
    /expected 8 bytes at \d+, found 4: the file has been cut short/,
  );
});

Deno.test("NaN and infinity are named by tensor and element when asked for", async () => {
  const values = new Float32Array(12);
  values[7] = NaN;
  const path = craft({ w: f32([3, 2, 2], 0, 48) }, new Uint8Array(values.buffer));
  assert.equal(await refusal(path, "w"), 'tensor "w": expected finite values, found NaN at [1, 1, 1]');
  using file = await openSafetensors(path);
  assert(Number.isNaN((await file.read("w"))[7]));
  assert.equal((await file.read("w", { rows: [2, 3], finite: true })).length, 4);
  await assert.rejects(file.read("w", { rows: [1, 3], finite: true }), /found NaN at \[1, 1, 1\]/);
  const scalar = craft({ s: f32([], 0, 4) }, new Uint8Array([0, 0, 128, 255]));
  assert.equal(await refusal(scalar, "s"), 'tensor "s": expected finite values, found -Infinity at []');
});

Deno.test("rows are read alone, in any order, many at a time", async () => {
  const values = Float32Array.from({ length: 6 * 5 }, (_, i) => i - 7);
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    const path = join(FOLDER, `rows-${dtype}.safetensors`);
    await writeSafetensors(path, [
      { name: "a", shape: [3], data: () => new Float32Array(3) },
      { name: "w", shape: [6, 5], data: () => values },
    ], { dtype });
    using file = await openSafetensors(path);
    const ranges = [[4, 6], [0, 1], [1, 4], [2, 2], [0, 6]] as const;
    const parts = await Promise.all(ranges.map((rows) => file.read("w", { rows })));
    for (const [i, [first, end]] of ranges.entries()) {
      assert.deepEqual(parts[i], values.slice(first * 5, end * 5), `${dtype} rows ${first} to ${end}`);
    }
    const stored = await file.readStored("w", [5, 6]);
    assert.equal(stored.dtype, dtype);
    assert.equal(stored.bytes.length, 5 * (dtype === "f32" ? 4 : 2));
    for (const rows of [[0, 7], [3, 2], [-1, 2], [0.5, 1]] as const) {
      await assert.rejects(file.read("w", { rows }), {
        name: "RangeError",
        message: /tensor "w": expected rows within \[0, 6\]/,
      });
    }
  }
});

const SOURCES: TensorSource[] = [
  { name: "b.weight", shape: [2, 3], data: () => new Float32Array([1, -0, 65504, 2 ** -24, 0.333, -7]) },
  { name: 'a\u2028"é', shape: [], data: () => Promise.resolve(new Float32Array([3])) },
  { name: "10", shape: [2], data: () => [new Float32Array([1]), new Float32Array([2])] },
  { name: "9", shape: [0, 4], data: () => new Float32Array() },
];

Deno.test("the layout is Hugging Face's: sorted by name, compact, padded with spaces to 8 bytes", async () => {
  const path = join(FOLDER, "layout.safetensors");
  await writeSafetensors(path, [SOURCES[0], SOURCES[2]], {
    dtype: "f16",
    metadata: [["z", "1"], ["format", "pt"]],
  });
  const bytes = Deno.readFileSync(path);
  const expected =
    '{"__metadata__":{"format":"pt","z":"1"},"10":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},' +
    '"b.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]}}';
  const padded = expected.padEnd(Math.ceil(expected.length / 8) * 8);
  assert.notEqual(padded, expected);
  assert.equal(new DataView(bytes.buffer).getBigUint64(0, true), BigInt(padded.length));
  assert.equal(new TextDecoder().decode(bytes.subarray(8, 8 + padded.length)), padded);
  assert.deepEqual([...bytes.subarray(8 + padded.length, 8 + padded.length + 4)], [0x00, 0x3c, 0x00, 0x40]);
});

for (const dtype of ["f32", "f16", "bf16"] as const) {
  Deno.test(`save, load, save gives equal bytes in ${dtype}`, async () => {
    const paths = [join(FOLDER, `first-${dtype}`), join(FOLDER, `second-${dtype}`)];
    await writeSafetensors(paths[0], SOURCES, { dtype, metadata: [["format", "pt"], ["note", "é"]] });
    await copyWeights(paths[0], paths[1], dtype);
    assertSameBytes(Deno.readFileSync(paths[1]), Deno.readFileSync(paths[0]));
  });
}

async function copyWeights(from: string, to: string, dtype: "f32" | "f16" | "bf16"): Promise<void> {
  using file = await openSafetensors(from);
  const tensors = [...file.header.tensors.values()].reverse().map(({ name, shape }) => ({
    name,
    shape,
    async *data() {
      // One row at a time, as a tensor in row shards would come back from a device.
      const rows = shape[0] ?? 1;
      for (let row = 0; row < rows; row++) yield await file.read(name, { rows: [row, row + 1] });
    },
  }));
  await writeSafetensors(to, tensors, { dtype, metadata: file.header.metadata });
}

Deno.test("nothing half-written is left when a tensor fails, and the older file stays", async () => {
  const folder = Deno.makeTempDirSync({ dir: FOLDER });
  const path = join(folder, "model.safetensors");
  await writeSafetensors(path, SOURCES, { dtype: "f32" });
  const before = Deno.readFileSync(path);
  const fail = (data: TensorSource["data"], shape = [2]) =>
    writeSafetensors(path, [...SOURCES, { name: "z", shape, data }], { dtype: "f16" });
  await assert.rejects(fail(() => Promise.reject(new Error("device lost"))), /device lost/);
  await assert.rejects(
    fail(() => new Float32Array(3)),
    /^RangeError: Cannot write tensor "z": expected 2 values for its shape, found 3$/,
  );
  await assert.rejects(fail(() => new Float32Array([1, 65520])), {
    name: "CheckpointError",
    message: `Cannot write ${path}: tensor "z": expected values within f16, found 65520 at element 1`,
  });
  await assert.rejects(
    writeSafetensors(path, [SOURCES[0], SOURCES[0]], { dtype: "f32" }),
    /tensor "b.weight": expected a name of its own/,
  );
  assert.deepEqual([...Deno.readDirSync(folder)].map((entry) => entry.name), [basename(path)]);
  assert.deepEqual(Deno.readFileSync(path), before);
});

Deno.test("a folder that is not there is named when writing", async () => {
  const path = join(FOLDER, "nowhere", "model.safetensors");
  await assert.rejects(writeSafetensors(path, SOURCES, { dtype: "f32" }), (error) => {
    assert(error instanceof CheckpointError);
    return error.message.startsWith(`Cannot write ${path}: `);
  });
});

Deno.test("each tensor is asked for once, after the one before was written", async () => {
  const log: string[] = [];
  const tensors = ["c", "a", "b"].map((name) => ({
    name,
    shape: [1],
    async *data() {
      log.push(`start ${name}`);
      yield await Promise.resolve(new Float32Array(1));
      log.push(`end ${name}`);
    },
  }));
  await writeSafetensors(join(FOLDER, "lazy.safetensors"), tensors, { dtype: "f32" });
  assert.deepEqual(log, ["start a", "end a", "start b", "end b", "start c", "end c"]);
});

Deno.test("findDuplicateKey is not misled by strings, escapes and equal keys of different objects", () => {
  const clean = '{"a": "a", "b\\"": {"a": [{"a": 1}, {"a": "{\\"a\\":1,\\"a\\":2}"}]}, "c" : ["a", "a"]}';
  JSON.parse(clean);
  assert.equal(findDuplicateKey(clean), undefined);
  assert.deepEqual(findDuplicateKey('{"x": [1, {"y": {"z": 1, "\\u007a" : 2}}]}'), ["x", "y", "z"]);
  assert.deepEqual(findDuplicateKey('{"x": {}, "x" :1}'), ["x"]);
});

for (const path of ["models/stories260K/model.safetensors", "weights/tiny-gpt2-lm-buddy/model.safetensors"]) {
  testWithSharedData(`${path} is read and written back byte for byte`, async () => {
    const copy = join(FOLDER, `${files++}-copy.safetensors`);
    await copyWeights(join(SHARED_DATA, path), copy, "f32");
    assertSameBytes(Deno.readFileSync(copy), Deno.readFileSync(join(SHARED_DATA, path)));
  });
}

testWithSharedData("tiny-random-llama-bf16 is read, and its data is the same in name order", async () => {
  const path = join(SHARED_DATA, "weights/tiny-random-llama-bf16/tiny_llama.safetensors");
  const copy = join(FOLDER, "bf16-copy.safetensors");
  await copyWeights(path, copy, "bf16");
  using original = await openSafetensors(path);
  using written = await openSafetensors(copy);
  assert.deepEqual([...written.header.tensors.keys()], [...original.header.tensors.keys()].sort());
  for (const name of original.header.tensors.keys()) {
    assertSameBytes((await written.readStored(name)).bytes, (await original.readStored(name)).bytes);
    assert((await original.read(name, { finite: true })).some((value) => value !== 0));
  }
});
