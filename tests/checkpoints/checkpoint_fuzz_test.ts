import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { findCheckpoint } from "../../train/checkpoints/find.ts";
import {
  formatManifest,
  type Manifest,
  MANIFEST_FILE,
  parseManifest,
  STATE_FILE,
  TENSORS_FILE,
} from "../../train/checkpoints/manifest.ts";
import { restoreCheckpoint } from "../../train/checkpoints/read.ts";
import { parseNumbers } from "../../train/checkpoints/state_json.ts";
import { writeCheckpoint } from "../../train/checkpoints/write.ts";
import { CheckpointError } from "../../train/errors.ts";
import { assertClean, fuzz, type FuzzTarget, fuzzTest } from "../fuzz/harness.ts";
import { mutateBytes, mutateText, mutateValue } from "../fuzz/mutate.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { assertSame, contextOf, smallRun } from "./small_run.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");

const MANIFEST: Manifest = {
  ...{ formatVersion: 1, keelVersion: "0.1.0", step: 2, score: 0.5, identity: { seed: 0, "1": { a: [1] } } },
  files: [STATE_FILE, TENSORS_FILE, "model/model.safetensors"].map((path) => ({
    ...{ path, sizeBytes: 12, sha256: "0".repeat(64) },
  })),
};
const NUMBERS = '{"step": 2, "metricsBytes": 20, "parts": {"model": {}, "optimizer": {"a": 1e-3, "b": -0}}}';

/** Where a path may not lead. */
const PATHS = [
  ...[
    "../x",
    "/etc/passwd",
    "a/../../x",
    "model/../../x",
    "..",
    ".",
    "",
    "a//b",
    "model/",
    "C:x",
    "a\\b",
    "a\0b",
  ],
  ...["\\\\server\\x", "model/./x", "file:///x", "~/x".replace("~", ".."), "nul:"],
];

const refusal = CheckpointError;

/** A manifest whose digest is right, whatever it says. */
function sealed(manifest: unknown): string {
  return JSON.stringify({ sha256: sha256(JSON.stringify(manifest) ?? ""), manifest });
}

const TEXT = formatManifest(MANIFEST);

fuzzTest("1,500 damaged manifests: none is accepted that says something else", {
  target: {
    refusal,
    attempt(random, index) {
      const bytes = index % 3 === 0 ? mutateBytes(encode(TEXT), random) : encode(mutateText(TEXT, random));
      // Spaces may change, or a number's spelling, and nothing else.
      assert.equal(JSON.stringify(parseManifest(bytes, { file: "m.json" })), JSON.stringify(MANIFEST));
    },
  },
  ...{ inputs: 1500, seed: 1, accepted: [0, 300] },
});

/** A manifest that is damaged before it gets its digest; in every other one a file lies about itself. */
function lyingManifest(random: () => number, index: number): string {
  const manifest = mutateValue(MANIFEST as unknown as Record<string, unknown>, random);
  if (index % 2 === 0 && Array.isArray(manifest.files) && manifest.files[2]) {
    (manifest.files as unknown[])[2] = {
      path: PATHS[Math.floor(random() * PATHS.length)],
      sizeBytes: [-1, 1e300, 0.5, 2 ** 53, 12][Math.floor(random() * 5)],
      sha256: sha256(""),
    };
  }
  return sealed(manifest);
}

fuzzTest("1,500 manifests that lie under a right digest: each is refused, or its paths stay inside", {
  target: {
    refusal,
    attempt(random, index) {
      const { files } = parseManifest(encode(lyingManifest(random, index)), { file: "m.json" });
      for (const { path, sizeBytes } of files) {
        assert.match(path, /^[^\\:\0]+$/);
        assert(path.split("/").every((name) => !["", ".", ".."].includes(name)), path);
        assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0);
      }
    },
  },
  ...{ inputs: 1500, seed: 2, accepted: [50, 1000] },
});

Deno.test("every path that leaves the folder is refused, on its own", () => {
  for (const path of PATHS) {
    const files = [...MANIFEST.files.slice(0, 2), { ...MANIFEST.files[2], path }];
    const text = sealed({ ...MANIFEST, files });
    assert.throws(
      () => parseManifest(encode(text), { file: "m.json" }),
      /files\.2\.path: expected a plain path/,
    );
  }
  assert.deepEqual(parseManifest(encode(sealed(MANIFEST)), { file: "m.json" }), MANIFEST);
});

fuzzTest("1,000 damaged state.json: each is refused, or holds finite numbers", {
  target: {
    refusal,
    attempt(random, index) {
      const bytes = index % 3 === 0
        ? mutateBytes(encode(NUMBERS), random)
        : encode(mutateText(NUMBERS, random));
      const found = parseNumbers(bytes, { file: "s.json" });
      assert(Number.isSafeInteger(found.step) && Number.isSafeInteger(found.metricsBytes));
      for (const part of found.parts.values()) {
        for (const value of Object.values(part)) assert(Number.isFinite(value));
      }
    },
  },
  ...{ inputs: 1000, seed: 3, accepted: [20, 700] },
});

Deno.test("deep, large, doubled and misspelt JSON is refused by name", () => {
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  const cases: [string, RegExp][] = [
    [`{"sha256":"","manifest":${deep}}`, /nested at most/],
    [deep, /nested at most/],
    ['{"a":'.repeat(200_000), /nested at most/],
    [`{"a":1,"a":2}`, /one key "a", found two/],
    [" ".repeat(2 ** 24 + 1), /at most 16777216 bytes/],
    ["\ufeff{}", /JSON/],
    ["", /JSON/],
    ["null", /an object of sha256 and manifest, found null/],
    [sealed({ ...MANIFEST, formatVersion: 2 }), /formatVersion: expected 1.*found 2/],
    [sealed({ ...MANIFEST, files: [...MANIFEST.files, MANIFEST.files[0]] }), /each other file once/],
    [sealed({ ...MANIFEST, files: MANIFEST.files.slice(1) }), /expected state.json, found no such file/],
  ];
  for (const [text, message] of cases) {
    assert.throws(() => parseManifest(encode(text), { file: "m.json" }), (error: Error) => {
      assert(error instanceof CheckpointError);
      assert.match(error.message, message);
      assert(error.message.length < 400, "a message is no dump");
      return true;
    });
  }
});

gpuTest(
  "400 damaged checkpoints on the disk: the damage is seen, and the one before is found",
  async (gpu) => {
    using run = smallRun(gpu);
    const folder = temporaryFolder();
    for (const step of [2, 4]) {
      run.goTo(step);
      await writeCheckpoint(run.state(), contextOf(folder));
    }
    const newest = join(folder, "checkpoints/step-000004");
    const files = [MANIFEST_FILE, STATE_FILE, TENSORS_FILE, "model/model.safetensors"];
    const originals = files.map((name) => Deno.readFileSync(join(newest, name)));
    const target: FuzzTarget = {
      name: "checkpoints",
      async attempt(random, index) {
        const which = index % files.length;
        const damaged = mutateBytes(originals[which], random);
        const isSame = Buffer.compare(damaged, originals[which]) === 0;
        Deno.writeFileSync(join(newest, files[which]), damaged);
        const found = (await findCheckpoint(folder))!;
        Deno.writeFileSync(join(newest, files[which]), originals[which]);
        // A manifest may change in what means nothing, such as the case of an escape; never a file's content.
        if (which > 0) assert.equal(found.step, isSame ? 4 : 2, files[which]);
        if (found.step === 4) return;
        assert(found.skipped[0].reason.includes(files[which]), found.skipped[0].reason);
        throw new CheckpointError(found.skipped[0].reason);
      },
    };
    assertClean(await fuzz(target, { inputs: 400, seed: 4 }), [-1, 100]);
    assert.equal((await findCheckpoint(folder))!.step, 4);
  },
);

gpuTest(
  "600 headers of tensors that lie under a right digest: refused before anything is written",
  async (gpu) => {
    using run = smallRun(gpu);
    const folder = temporaryFolder();
    run.goTo(2);
    await writeCheckpoint(run.state(), contextOf(folder));
    const original = (await findCheckpoint(folder))!;
    const path = join(original.folder, TENSORS_FILE);
    const bytes = Deno.readFileSync(path);
    const headerBytes = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    run.goTo(1);
    const expected = await run.contents();
    let refused = 0;
    const target: FuzzTarget = {
      name: "tensors",
      async attempt(random) {
        const header = mutateBytes(bytes.subarray(0, headerBytes), random);
        const damaged = Buffer.concat([header, bytes.subarray(headerBytes)]);
        Deno.writeFileSync(path, damaged);
        const entry = { path: TENSORS_FILE, sizeBytes: damaged.length, sha256: sha256(damaged) };
        const files = original.manifest.files.map((file) => file.path === TENSORS_FILE ? entry : file);
        const found = { ...original, manifest: { ...original.manifest, files } };
        try {
          await restoreCheckpoint(found, run.state());
        } catch (error) {
          // Reading back takes a while: now and then.
          if (++refused % 20 === 0) assertSame(await run.contents(), expected);
          throw error;
        }
        run.goTo(1);
      },
    };
    assertClean(await fuzz(target, { inputs: 600, seed: 5 }), [0, 150]);
  },
);

gpuTest("links, pipes, folders and files cut short in a checkpoint: skipped, never followed", async (gpu) => {
  using run = smallRun(gpu);
  const template = temporaryFolder();
  for (const step of [2, 4]) {
    run.goTo(step);
    await writeCheckpoint(run.state(), contextOf(template));
  }
  const outside = join(temporaryFolder(), "outside");
  cpSync(join(template, "checkpoints/step-000004"), outside, { recursive: true });
  const replace = (name: string, by: (path: string) => unknown) => async (newest: string) => {
    await Deno.remove(join(newest, name), { recursive: true });
    await by(join(newest, name));
  };
  const link = (name: string) => replace(name, (path) => Deno.symlink(join(outside, name), path));
  const pipe = (name: string) =>
    replace(name, (path) => new Deno.Command("mkfifo", { args: [path] }).output());
  const cases: Record<string, (newest: string) => Promise<unknown>> = {
    "the checkpoint is a link": replace("", (path) => Deno.symlink(outside, path.replace(/\/$/, ""))),
    "the manifest is a link": link(MANIFEST_FILE),
    "the state is a link": link(STATE_FILE),
    "the tensors are a link": link(TENSORS_FILE),
    "the model's folder is a link": link("model"),
    "the manifest is a folder": replace(MANIFEST_FILE, Deno.mkdir),
    "the manifest is gone": replace(MANIFEST_FILE, () => {}),
    "the manifest is empty": (newest) => Deno.truncate(join(newest, MANIFEST_FILE)),
    "the tensors are gone": replace(TENSORS_FILE, () => {}),
    "the tensors are cut short": (newest) => Deno.truncate(join(newest, TENSORS_FILE), 20),
    "the manifest is of another step": (newest) => {
      const other = newest.replace("000004", "000002");
      return Deno.copyFile(join(other, MANIFEST_FILE), join(newest, MANIFEST_FILE));
    },
    "everything is gone": replace("", Deno.mkdir),
    ...(Deno.build.os === "windows" ? {} : {
      "the manifest is a pipe": pipe(MANIFEST_FILE),
      "the tensors are a pipe": pipe(TENSORS_FILE),
    }),
  };
  for (const [name, spoil] of Object.entries(cases)) {
    const folder = temporaryFolder();
    cpSync(template, folder, { recursive: true });
    const newest = join(folder, "checkpoints/step-000004");
    await spoil(newest);
    assert.equal((await findCheckpoint(folder))?.step, 2, name);
  }
  // With nothing left to go back to, each is named.
  const folder = temporaryFolder();
  cpSync(template, folder, { recursive: true });
  for (const step of [2, 4]) {
    await Deno.truncate(join(folder, `checkpoints/step-00000${step}`, STATE_FILE), 1);
  }
  await assert.rejects(findCheckpoint(folder), (error: Error) => {
    assert(error instanceof CheckpointError);
    assert.match(error.message, /2 damaged:\n.*step-000004.state\.json.*\n.*step-000002.state\.json/);
    return true;
  });
});
