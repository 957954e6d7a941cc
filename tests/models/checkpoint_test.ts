import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { DType } from "../../engine/dtype.ts";
import { CheckpointError } from "../../train/errors.ts";
import { openCheckpoint } from "../../train/models/checkpoint.ts";
import { parseCheckpointIndex } from "../../train/models/checkpoint_index.ts";
import {
  type CheckpointWriteOptions,
  planFiles,
  writeCheckpoint,
} from "../../train/models/checkpoint_write.ts";
import { type TensorSource, writeSafetensors } from "../../train/models/safetensors_write.ts";
import { temporaryFolder } from "../tiny_model.ts";

const INDEX = "model.safetensors.index.json";
const FIRST = "model-00001-of-00002.safetensors";
const SECOND = "model-00002-of-00002.safetensors";

/** Tensors of rising values that every element type holds. */
function sources(shapes: Record<string, number[]>): TensorSource[] {
  let start = 0;
  return Object.entries(shapes).map(([name, shape]) => {
    const length = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length }, (_, i) => (start + i) % 128);
    start += length;
    return { name, shape, data: () => values };
  });
}

const TENSORS = sources({ a: [2, 3], b: [4], c: [3, 2], d: [] });

/** Every file of a folder. */
function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(
    readdirSync(folder).sort().map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]),
  );
}

/** `a` and `b` in the first file, `c` and `d` in the second, with an index that a test may spoil. */
async function sharded(
  options: {
    weightMap?: Record<string, unknown>;
    metadata?: unknown;
    extra?: Record<string, string[]>;
    text?: string;
  } = {},
): Promise<string> {
  const folder = temporaryFolder();
  const files = { [FIRST]: ["a", "b"], [SECOND]: ["c", "d"], ...options.extra };
  for (const [file, names] of Object.entries(files)) {
    const held = TENSORS.filter(({ name }) => names.includes(name));
    await writeSafetensors(join(folder, file), held, { dtype: "f32" });
  }
  const index = {
    metadata: options.metadata ?? { total_size: (6 + 4 + 6 + 1) * 4 },
    weight_map: { a: FIRST, b: FIRST, c: SECOND, d: SECOND, ...options.weightMap },
  };
  Deno.writeTextFileSync(join(folder, INDEX), options.text ?? JSON.stringify(index));
  return folder;
}

async function refusal(folder: string): Promise<string> {
  const error = await openCheckpoint(folder).catch((error) => error);
  assert(error instanceof CheckpointError, String(error));
  assert(error.message.startsWith(`Cannot read ${folder}`), error.message);
  return error.message.slice(`Cannot read ${folder}`.length);
}

Deno.test("tensors of several files are read as if they were in one", async () => {
  const folder = await sharded();
  using checkpoint = await openCheckpoint(folder);
  assert.equal(checkpoint.path, join(folder, INDEX));
  assert.deepEqual([...checkpoint.tensors.keys()].sort(), ["a", "b", "c", "d"]);
  assert.equal(checkpoint.tensors.get("c")!.file, join(folder, SECOND));
  for (const { name, data } of TENSORS) assert.deepEqual(await checkpoint.read(name), data());
  assert.deepEqual([...await checkpoint.read("c", { rows: [1, 3] })], [12, 13, 14, 15]);
  const into = new Uint8Array(20);
  const { dtype, bytes } = await checkpoint.readStored("b", [1, 3], { into });
  assert.equal(dtype, "f32");
  assert.equal(bytes.buffer, into.buffer);
  assert.deepEqual([...new Float32Array(bytes.buffer, 0, 2)], [7, 8]);
  await assert.rejects(checkpoint.readStored("a", [0, 2], { into }), RangeError);
  await assert.rejects(checkpoint.read("e"), {
    name: "CheckpointError",
    message: `Cannot read ${join(folder, INDEX)}: expected tensor "e", found 4 others`,
  });
});

Deno.test("one file counts where both layouts are there, and nothing is named where neither is", async () => {
  const folder = temporaryFolder();
  const message = (found: string) => `: expected model.safetensors or ${INDEX}, found ${found}`;
  assert.equal(await refusal(folder), message("nothing"));
  Deno.writeTextFileSync(join(folder, "pytorch_model.bin"), "");
  assert.equal(
    await refusal(folder),
    message("pytorch_model.bin, which can run code when it is read"),
  );
  const both = await sharded();
  await writeSafetensors(join(both, "model.safetensors"), sources({ other: [1] }), { dtype: "bf16" });
  using checkpoint = await openCheckpoint(both);
  assert.deepEqual([...checkpoint.tensors.keys()], ["other"]);
  assert.deepEqual([...checkpoint.layout.dtypes], [["other", "bf16"]]);
  assert.equal(checkpoint.layout.isSharded, false);
});

const PLAIN = "expected the plain name of a .safetensors file beside the index";

const HOSTILE: [title: string, options: Parameters<typeof sharded>[0], expected: string][] = [
  [
    "a file that is not there",
    { weightMap: { c: "model-3.safetensors", d: "model-3.safetensors" } },
    "/model-3.safetensors: expected a file, found nothing",
  ],
  [
    "a tensor that the index does not name",
    { weightMap: { d: undefined } },
    `/${INDEX}: tensor "d": expected no such tensor, found it in ${SECOND}`,
  ],
  [
    "a tensor in another file than the index says",
    { weightMap: { b: SECOND } },
    `/${INDEX}: tensor "b": expected it in ${SECOND}, found it in ${FIRST}`,
  ],
  [
    "a tensor that its file lacks",
    { weightMap: { e: FIRST } },
    `/${INDEX}: tensor "e": expected it in ${FIRST}, found no such tensor there`,
  ],
  [
    "a tensor in two files",
    { extra: { [SECOND]: ["b", "c", "d"] } },
    `/${INDEX}: tensor "b": expected it in one file, found it in ${FIRST} and in ${SECOND}`,
  ],
  [
    "a wrong total size",
    { metadata: { total_size: 67 } },
    `/${INDEX}: metadata: total_size: expected 68, the bytes of all tensors, found 67`,
  ],
  [
    "a total size that is no number",
    { metadata: { total_size: "68" } },
    `/${INDEX}: metadata: total_size: expected a number of bytes, found "68"`,
  ],
  ["metadata that is a list", { metadata: [] }, `/${INDEX}: metadata: expected an object, found []`],
  [
    "text that is not JSON",
    { text: "{" },
    `/${INDEX}: expected JSON, found Expected property name or '}' in JSON at position 1 (line 1 column 2)`,
  ],
  ["a list", { text: "[]" }, `/${INDEX}: expected an object of metadata and weight_map, found []`],
  [
    "no weight_map",
    { text: "{}" },
    `/${INDEX}: weight_map: expected an object that names a file for each tensor, found nothing`,
  ],
  [
    "no tensor",
    { text: '{"weight_map": {}}' },
    `/${INDEX}: weight_map: expected at least one tensor, found none`,
  ],
  [
    "one tensor twice",
    { text: `{"weight_map": {"a": "${FIRST}", "\\u0061": "${SECOND}"}}` },
    `/${INDEX}: weight_map: "a": expected one key of that name, found two`,
  ],
  [
    "a file name that is a number",
    { weightMap: { a: 1 } },
    `/${INDEX}: weight_map: "a": expected the name of a .safetensors file, found 1`,
  ],
  ...[
    ["an absolute path", "/etc/model.safetensors"],
    ["a path to the folder above", "../model.safetensors"],
    ["a path into a folder", "part/model.safetensors"],
    ["a Windows path", "..\\model.safetensors"],
    ["a drive", "C:model.safetensors"],
    ["a NUL", "model\0.safetensors"],
    ["no name", ".safetensors"],
    ["another ending", "config.json"],
    ["the folder itself", "."],
    ["the empty string", ""],
  ].map(([title, name]): (typeof HOSTILE)[number] => [
    `${title} for a file name`,
    { weightMap: { a: name } },
    `/${INDEX}: weight_map: "a": ${PLAIN}, found ${JSON.stringify(name)}`,
  ]),
];

for (const [title, options, expected] of HOSTILE) {
  Deno.test(`an index is refused for ${title}`, async () => {
    assert.equal(await refusal(await sharded(options)), expected);
  });
}

Deno.test("a damaged shard is refused on opening: cut short, overlapping, or a folder", async () => {
  const folder = await sharded();
  const path = join(folder, SECOND);
  const whole = Deno.readFileSync(path);
  Deno.writeFileSync(path, whole.subarray(0, -4));
  assert.match(
    await refusal(folder),
    /^\/model-00002-of-00002\.safetensors: tensor "d", data_offsets: .* bytes of data/,
  );
  const text = new TextDecoder("latin1").decode(whole).replace("[24,28]", "[20,28]");
  Deno.writeFileSync(path, Uint8Array.from(text, (character) => character.charCodeAt(0)));
  assert.match(await refusal(folder), /tensor "d", data_offsets: .*which overlaps the tensor before/);
  Deno.removeSync(path);
  Deno.mkdirSync(path);
  assert.equal(await refusal(folder), `/${SECOND}: expected a file, found a folder`);
});

Deno.test("links are followed, as in the hub's cache", async () => {
  const folder = await sharded();
  const cache = temporaryFolder();
  Deno.mkdirSync(join(cache, "snapshots", "1"), { recursive: true });
  Deno.renameSync(folder, join(cache, "blobs"));
  Deno.mkdirSync(folder); // removed when the process ends
  for (const name of readdirSync(join(cache, "blobs"))) {
    Deno.symlinkSync(join("..", "..", "blobs", name), join(cache, "snapshots", "1", name));
  }
  using checkpoint = await openCheckpoint(join(cache, "snapshots", "1"));
  assert.deepEqual([...await checkpoint.read("b")], [6, 7, 8, 9]);
});

Deno.test("NaN and infinity are named by file, tensor and element", async () => {
  const folder = temporaryFolder();
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const bad of [NaN, -Infinity]) {
      const data = () => new Float32Array([1, 2, 3, 4, bad, 6]);
      const tensors = [...sources({ a: [2] }), { name: "w", shape: [3, 2], data }];
      await writeCheckpoint(folder, tensors, { dtype, maxShardBytes: 8 });
      using checkpoint = await openCheckpoint(folder);
      await assert.rejects(checkpoint.read("w", { finite: true, rows: [1, 3] }), {
        name: "CheckpointError",
        message: `Cannot read ${
          checkpoint.tensors.get("w")!.file
        }: tensor "w": expected finite values, found ${bad} at [2, 0]`,
      });
    }
  }
});

Deno.test("quantized and other element types are refused by name", async () => {
  for (
    const [dtype, sizeBytes, found] of [
      ["I8", 1, "I8: quantized weights are not supported"],
      ["F8_E4M3", 1, "F8_E4M3: quantized weights are not supported"],
      ["U32", 4, "U32: quantized weights are not supported"],
      ["F64", 8, "F64"],
      ["I64", 8, "I64"],
    ] as const
  ) {
    const folder = temporaryFolder();
    const json = JSON.stringify({ w: { dtype, shape: [1], data_offsets: [0, sizeBytes] } });
    const file = new Uint8Array(8 + json.length + sizeBytes);
    new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
    file.set(new TextEncoder().encode(json), 8);
    const path = join(folder, "model.safetensors");
    Deno.writeFileSync(path, file);
    using checkpoint = await openCheckpoint(folder);
    for (const reading of [checkpoint.read("w"), checkpoint.readStored("w")]) {
      await assert.rejects(reading, {
        name: "CheckpointError",
        message: `Cannot read ${path}: tensor "w", dtype: expected F32, F16 or BF16, found ${found}`,
      });
    }
  }
});

/** Counts safetensors files that are opened and not closed yet. */
function countOpenFiles(): { openCount: () => number; stop: () => void } {
  const { open } = Deno;
  let count = 0;
  Deno.open = async (...options) => {
    const file = await open(...options);
    if (!String(options[0]).endsWith(".safetensors")) return file;
    count++;
    const close = file.close.bind(file);
    file.close = () => {
      count--;
      close();
    };
    return file;
  };
  return { openCount: () => count, stop: () => void (Deno.open = open) };
}

Deno.test("a checkpoint of many files is read with few of them open, and closes all", async () => {
  const folder = temporaryFolder();
  const tensors = sources(Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`t${i}`, [3]])));
  await writeCheckpoint(folder, tensors, { dtype: "f32", maxShardBytes: 12 });
  const { openCount, stop } = countOpenFiles();
  const checkpoint = await openCheckpoint(folder);
  assert.equal(openCount(), 16);
  const order = tensors.toSorted((a, b) => a.name.length - b.name.length || (a.name < b.name ? 1 : -1));
  const values = await Promise.all(order.map(({ name }) => checkpoint.read(name)));
  order.forEach(({ data }, i) => assert.deepEqual(values[i], data()));
  assert.equal(openCount(), 16);
  // One that is closed, and replaced meanwhile.
  const path = checkpoint.tensors.get("t0")!.file;
  for (const { name } of tensors.slice(1)) await checkpoint.read(name);
  await writeSafetensors(path, sources({ t0: [4] }), { dtype: "f32" });
  await assert.rejects(checkpoint.read("t0"), {
    name: "CheckpointError",
    message: `Cannot read ${path}: tensor "t0": expected it as it was on opening, found it changed`,
  });
  checkpoint[Symbol.dispose]();
  assert.equal(openCount(), 0);
  stop();
});

/** Files by name, with the names of their tensors. */
function planned(shapes: Record<string, number[]>, options: Omit<CheckpointWriteOptions, "dtype">) {
  const files = planFiles(sources(shapes), { dtype: "f32", ...options });
  return files.map(({ name, tensors }) => [name, tensors.map((tensor) => tensor.name).join("")]);
}

Deno.test("tensors fill files in order; one larger than a file has its own", () => {
  const shapes = { a: [1], b: [2], c: [9], d: [1], e: [1], f: [3] };
  assert.deepEqual(planned(shapes, {}), [["model.safetensors", "abcdef"]]);
  assert.deepEqual(planned(shapes, { maxShardBytes: 68 }), [["model.safetensors", "abcdef"]]);
  // c goes first: the file that is being filled when it comes goes on after it.
  assert.deepEqual(planned(shapes, { maxShardBytes: 16 }), [
    ["model-00001-of-00003.safetensors", "c"],
    ["model-00002-of-00003.safetensors", "abd"],
    ["model-00003-of-00003.safetensors", "ef"],
  ]);
  assert.deepEqual(planned({}, {}), [["model.safetensors", ""]]);
  for (const maxShardBytes of [0, -1, NaN]) {
    assert.throws(() => planned(shapes, { maxShardBytes }), RangeError);
  }
  assert.throws(
    () => planFiles([TENSORS[0], TENSORS[0]], { dtype: "f32" }),
    /"a": expected one of that name, found two/,
  );
});

Deno.test("tensors go back to the files that they came from, unless told otherwise", () => {
  const layout = {
    isSharded: true,
    files: new Map([["a", SECOND], ["b", FIRST], ["c", SECOND]]),
    dtypes: new Map<string, DType>([["a", "bf16"], ["b", "f16"]]),
  };
  assert.deepEqual(planned({ a: [1], b: [1], c: [1] }, { layout }), [[FIRST, "b"], [SECOND, "ac"]]);
  assert.deepEqual(planned({ a: [1], b: [1], e: [1] }, { layout }), [[FIRST, "b"], [SECOND, "ae"]]);
  assert.deepEqual(planned({ a: [1], c: [1] }, { layout }), [["model.safetensors", "ac"]]);
  assert.deepEqual(planned({ a: [1], b: [1], c: [1] }, { layout, maxShardBytes: 100 }), [[
    "model.safetensors",
    "abc",
  ]]);
  assert.deepEqual(planned({ a: [1], b: [1] }, { layout: { ...layout, isSharded: false } }), [[
    "model.safetensors",
    "ab",
  ]]);
  const files = planFiles(sources({ a: [1], b: [1], c: [1] }), { dtype: "loaded", layout });
  const dtypes = files.flatMap(({ tensors }) => tensors.map(({ name, dtype }) => `${name} ${dtype}`));
  assert.deepEqual(dtypes, ["b f16", "a bf16", "c f32"]);
});

for (const dtype of ["f32", "f16", "bf16"] as const) {
  for (const maxShardBytes of [undefined, 20]) {
    Deno.test(`save, load, save gives equal bytes in ${dtype}, shards of ${maxShardBytes ?? 5e9} bytes`, async () => {
      const [first, second] = [temporaryFolder(), temporaryFolder()];
      const names = await writeCheckpoint(first, TENSORS, { dtype, maxShardBytes });
      assert.deepEqual(names.toSorted(), Object.keys(filesOf(first)));
      assert.equal(names.length === 1, maxShardBytes === undefined);
      using checkpoint = await openCheckpoint(first);
      const tensors = TENSORS.map(({ name, shape }) => ({ name, shape, data: () => checkpoint.read(name) }));
      await writeCheckpoint(second, tensors, { dtype: "loaded", layout: checkpoint.layout });
      assert.deepEqual(filesOf(second), filesOf(first));
    });
  }
}

Deno.test("the index is printed as transformers prints it", async () => {
  const folder = temporaryFolder();
  await writeCheckpoint(folder, TENSORS.toReversed(), { dtype: "f16", maxShardBytes: 16 });
  assert.equal(
    Deno.readTextFileSync(join(folder, INDEX)),
    `{
  "metadata": {
    "total_size": 34
  },
  "weight_map": {
    "a": "model-00003-of-00003.safetensors",
    "b": "model-00002-of-00003.safetensors",
    "c": "model-00001-of-00003.safetensors",
    "d": "model-00001-of-00003.safetensors"
  }
}
`,
  );
});

Deno.test("a mixed file is ordered as Hugging Face's library orders it", async () => {
  const folder = temporaryFolder();
  const dtypes = { a: "f16", b: "bf16", c: "f32", d: "f32" } as const;
  const tensors = TENSORS.map((tensor) => ({ ...tensor, dtype: dtypes[tensor.name as "a"] as DType }));
  await writeCheckpoint(folder, tensors, { dtype: "f32" });
  using checkpoint = await openCheckpoint(folder);
  assert.deepEqual([...checkpoint.tensors.keys()], ["c", "d", "b", "a"]);
  assert.deepEqual([...await checkpoint.read("b")], [6, 7, 8, 9]);
});

Deno.test("a checkpoint over another removes what was of the other layout, and nothing else", async () => {
  const folder = temporaryFolder();
  for (const name of ["config.json", "adapter_model.safetensors", "pytorch_model.bin"]) {
    Deno.writeTextFileSync(join(folder, name), "");
  }
  const others = Object.keys(filesOf(folder));
  for (const maxShardBytes of [40, undefined, 16, 40, undefined]) {
    const names = await writeCheckpoint(folder, TENSORS, { dtype: "f32", maxShardBytes });
    assert.deepEqual(Object.keys(filesOf(folder)), [...others, ...names].sort());
    using checkpoint = await openCheckpoint(folder);
    for (const { name, data } of TENSORS) assert.deepEqual(await checkpoint.read(name), data());
  }
  // Files of any name that the older index names, even where it is in the way of the new one.
  const named = await sharded();
  Deno.renameSync(join(named, SECOND), join(named, "rest.safetensors"));
  const index = join(named, INDEX);
  Deno.writeTextFileSync(index, Deno.readTextFileSync(index).replaceAll(SECOND, "rest.safetensors"));
  await writeCheckpoint(named, TENSORS, { dtype: "f32" });
  assert.deepEqual(Object.keys(filesOf(named)), ["model.safetensors"]);
  Deno.writeTextFileSync(index, "no index");
  await writeCheckpoint(named, TENSORS, { dtype: "f32", maxShardBytes: 40 });
  assert.deepEqual(Object.keys(filesOf(named)), [FIRST, SECOND, INDEX]);
  // Shards that an index which cannot be read may have named.
  Deno.writeTextFileSync(index, "no index");
  await writeCheckpoint(named, TENSORS, { dtype: "f32" });
  assert.deepEqual(Object.keys(filesOf(named)), ["model.safetensors"]);
});

for (const [old, now] of [[40, 40], [undefined, 40], [40, undefined]]) {
  Deno.test(`a write that fails leaves the checkpoint that was there: ${old} to ${now}`, async () => {
    const folder = temporaryFolder();
    await writeCheckpoint(folder, TENSORS, { dtype: "f32", maxShardBytes: old });
    const before = filesOf(folder);
    const failing = [...TENSORS.slice(0, 3), {
      name: "d",
      shape: [],
      data: () => Promise.reject(new Error("lost")),
    }];
    await assert.rejects(
      writeCheckpoint(folder, failing, { dtype: "bf16", maxShardBytes: now }),
      /^Error: lost$/,
    );
    assert.deepEqual(filesOf(folder), before);
    const tooLarge = [...TENSORS.slice(0, 3), { name: "d", shape: [], data: () => Float32Array.of(1e6) }];
    await assert.rejects(
      writeCheckpoint(folder, tooLarge, { dtype: "f16", maxShardBytes: now }),
      CheckpointError,
    );
    assert.deepEqual(filesOf(folder), before);
  });
}

Deno.test("renaming that fails half-way leaves no mixture of two checkpoints, and no temporary file", async () => {
  const folder = temporaryFolder();
  const options = { dtype: "f32", maxShardBytes: 40 } as const;
  await writeCheckpoint(folder, TENSORS, options);
  const second = join(folder, SECOND);
  Deno.removeSync(second);
  Deno.mkdirSync(second); // nothing can be renamed onto a folder
  await assert.rejects(
    writeCheckpoint(folder, TENSORS, options),
    (error: Error) =>
      error instanceof CheckpointError && error.message.startsWith(`Cannot write ${second}: `),
  );
  assert.deepEqual(readdirSync(folder).sort(), [FIRST, SECOND]);
  assert.match(await refusal(folder), /found nothing$/);
});

Deno.test("a folder that is not there is named when writing", async () => {
  const folder = join(temporaryFolder(), "none");
  await assert.rejects(
    writeCheckpoint(folder, TENSORS, { dtype: "f32" }),
    (error: Error) => error instanceof CheckpointError && error.message.startsWith(`Cannot write ${folder}`),
  );
});

Deno.test("no total size is needed, and keys that are not known are passed over", () => {
  const text =
    `{"weight_map": {"__proto__": "${FIRST}", "w": "${FIRST}"}, "metadata": {"total_parameters": 3}, "x": 1}`;
  const { weightMap, totalBytes } = parseCheckpointIndex(text, { file: INDEX });
  assert.equal(weightMap.get("w"), FIRST);
  assert.equal(totalBytes, undefined);
});
