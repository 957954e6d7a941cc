/**
 * The cache's folders: what is found, and what is not yet.
 *
 * @module
 */
import assert from "node:assert/strict";
import { scanCachedRepo } from "@huggingface/hub";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { findInCache, linkSnapshot, locksFolderOf, repoFolderOf } from "../../train/hub/hub_cache.ts";
import { COMMIT, gitHash, REPO } from "./hub_server.ts";

const FILES = {
  "config.json": "{}",
  "tokenizer.json": "{ }",
  "chat_template.jinja": "x",
  "model.safetensors": "weights",
};
const SNAPSHOT = {
  commit: COMMIT,
  files: Object.entries(FILES).map(([path, text]) => {
    const bytes = new TextEncoder().encode(text);
    return { path, sizeBytes: bytes.byteLength, etag: gitHash(bytes) };
  }),
};

interface Cache extends AsyncDisposable {
  readonly cacheFolder: string;
  readonly repoFolder: string;
  readonly folder: string;
  link(revision?: string): Promise<void>;
  find(name?: string, fromOtherTools?: boolean): Promise<string | undefined>;
}

/** All blobs, and no snapshot yet. */
async function cache(): Promise<Cache> {
  const cacheFolder = await Deno.makeTempDir({ prefix: "keel-cache-" });
  const repoFolder = repoFolderOf(cacheFolder, REPO);
  const locksFolder = locksFolderOf(cacheFolder, REPO);
  await Deno.mkdir(join(repoFolder, "blobs"), { recursive: true });
  await Deno.mkdir(locksFolder, { recursive: true });
  for (const { path, etag } of SNAPSHOT.files) {
    await Deno.writeTextFile(join(repoFolder, "blobs", etag), FILES[path as keyof typeof FILES]);
  }
  return {
    cacheFolder,
    repoFolder,
    folder: join(repoFolder, "snapshots", COMMIT),
    link: (revision = "main") => linkSnapshot(repoFolder, { snapshot: SNAPSHOT, revision, locksFolder }),
    find: (name = REPO, fromOtherTools) => findInCache(name, { cacheFolder, fromOtherTools }),
    async [Symbol.asyncDispose]() {
      await Deno.remove(cacheFolder, { recursive: true });
    },
  };
}

/** A snapshot as another tool leaves it. */
async function placeFiles({ repoFolder, folder }: Cache, names: readonly string[]): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  for (const name of names) {
    await Deno.writeTextFile(join(folder, name), FILES[name as keyof typeof FILES] ?? "");
  }
  await Deno.mkdir(join(repoFolder, "refs"), { recursive: true });
  await Deno.writeTextFile(join(repoFolder, "refs", "main"), COMMIT);
}

Deno.test("a snapshot is links to blobs, as Hugging Face's own library reads them", async () => {
  await using made = await cache();
  assert.equal(await made.find(), undefined);
  await made.link();
  assert.equal(await made.find(), made.folder);
  assert.equal(await made.find(`${REPO}@${COMMIT}`), made.folder);
  assert.equal(await made.find(`${REPO}@other`), undefined);
  assert.equal(await made.find("tester/other"), undefined);
  assert.equal(
    Deno.readLinkSync(join(made.folder, "config.json")),
    join("..", "..", "blobs", SNAPSHOT.files[0].etag),
  );
  const { id, revisions } = await scanCachedRepo(made.repoFolder);
  assert.deepEqual(id, { name: REPO, type: "model" });
  assert.deepEqual(revisions.map(({ commitOid, refs }) => [commitOid, refs]), [[COMMIT, ["main"]]]);
  assert.deepEqual(
    revisions[0].files.map(({ path }) => path.slice(made.folder.length + 1)).toSorted(),
    Object.keys(FILES).toSorted(),
  );
});

Deno.test("a commit leaves no ref, a branch with slashes a nested one", async () => {
  await using made = await cache();
  await made.link(COMMIT);
  assert(!existsSync(join(made.repoFolder, "refs")));
  assert.equal(await made.find(), undefined);
  assert.equal(await made.find(`${REPO}@${COMMIT}`), made.folder);
  await made.link("refs/pr/1");
  assert.equal(Deno.readTextFileSync(join(made.repoFolder, "refs", "refs", "pr", "1")), COMMIT);
  assert.equal(await made.find(`${REPO}@refs/pr/1`), made.folder);
});

Deno.test("a snapshot is found with every file or not at all", async () => {
  for (const { path, etag, sizeBytes } of SNAPSHOT.files) {
    await using made = await cache();
    await made.link();
    await Deno.truncate(join(made.repoFolder, "blobs", etag), sizeBytes - 1);
    assert.equal(await made.find(), undefined, `${path} too short`);
    await Deno.remove(join(made.repoFolder, "blobs", etag));
    assert.equal(await made.find(), undefined, `${path} leads nowhere`);
    await Deno.remove(join(made.folder, path));
    assert.equal(await made.find(), undefined, `no ${path}`);
  }
});

Deno.test("a snapshot of another tool counts where it is asked for and holds a model", async () => {
  const shard = "model-00001-of-00001.safetensors";
  const index = "model.safetensors.index.json";
  const cases: [string[], boolean][] = [
    [["config.json", "tokenizer.json", "model.safetensors"], true],
    [["config.json", "vocab.json", "merges.txt", "model.safetensors"], true],
    [["config.json", "tokenizer.json", shard, index], true],
    [["config.json", "tokenizer.json", index], false],
    [["config.json", "tokenizer.json", shard], false],
    [["config.json", "model.safetensors"], false],
    [["tokenizer.json", "model.safetensors"], false],
    [["config.json", "tokenizer.json"], false],
  ];
  for (const [names, isFound] of cases) {
    await using made = await cache();
    await placeFiles(made, names);
    if (names.includes(index)) {
      await Deno.writeTextFile(join(made.folder, index), `{"weight_map":{"a":"${shard}"}}`);
    }
    assert.equal(await made.find(), isFound ? made.folder : undefined, names.join());
    assert.equal(await made.find(REPO, false), undefined);
  }
});

Deno.test("a snapshot that another tool began is completed in place", async () => {
  await using made = await cache();
  await placeFiles(made, ["config.json", "README.md"]);
  await Deno.symlink(join("..", "..", "blobs", "gone"), join(made.folder, "model.safetensors"));
  await made.link();
  assert.equal(await made.find(REPO, false), made.folder);
  for (const [path, text] of Object.entries(FILES)) {
    assert.equal(Deno.readTextFileSync(join(made.folder, path)), text);
  }
  assert(Deno.statSync(join(made.folder, "README.md")).isFile, "what it had is still there");
  assert.deepEqual([...Deno.readDirSync(dirname(made.folder))].map(({ name }) => name), [COMMIT]);
});

Deno.test("two that link the same snapshot at once end with one", async () => {
  await using made = await cache();
  await Promise.all([made.link(), made.link(), made.link()]);
  assert.equal(await made.find(REPO, false), made.folder);
  assert.deepEqual([...Deno.readDirSync(join(made.repoFolder, ".keel"))].map(({ name }) => name), [
    `${COMMIT}.json`,
  ]);
});

Deno.test("a ref that holds no commit leads nowhere", async () => {
  await using made = await cache();
  await made.link();
  await Deno.mkdir(join(made.repoFolder, "elsewhere"));
  for (const path of Object.keys(FILES)) {
    await Deno.writeTextFile(join(made.repoFolder, "elsewhere", path), "{}");
  }
  await Deno.writeTextFile(join(made.repoFolder, "refs", "main"), "../elsewhere");
  assert.equal(await made.find(), undefined);
});
