/**
 * What arrives in the cache's blobs/, and what does not, with a hub that misbehaves.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fetchBlob } from "../../train/hub/fetch_blob.ts";
import { createHubClient } from "../../train/hub/hub_client.ts";
import { parseHubName } from "../../train/hub/hub_name.ts";
import { HubError } from "../../train/hub/hub_error.ts";
import { fetchSnapshot } from "../../train/hub/fetch_snapshot.ts";
import {
  COMMIT,
  type Fault,
  type HubServer,
  type HubServerOptions,
  REPO,
  sha256,
  startHubServer,
} from "./hub_server.ts";

/** No two parts of it are alike. */
function makeBytes(size: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, (_, index) => (index * 2654435761) >>> 13);
}

const WEIGHTS = makeBytes(100_000);
const FILES = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": WEIGHTS };
const RETRY = { attempts: 3, delayMs: 1 };

interface Space extends AsyncDisposable {
  readonly server: HubServer;
  readonly folder: string;
  fetch(
    options?: { name?: string; token?: string; onProgress?: (done: number, total: number) => void },
  ): ReturnType<
    typeof fetchSnapshot
  >;
  blobs(): string[];
  read(path: string): Promise<Uint8Array>;
}

async function space(options: Partial<HubServerOptions> = {}): Promise<Space> {
  const server = startHubServer({ files: FILES, ...options });
  const folder = await Deno.makeTempDir({ prefix: "keel-hub-" });
  const blobsFolder = join(folder, "blobs");
  await Deno.mkdir(blobsFolder);
  const request = { endpoint: server.endpoint, repoFolder: folder, locksFolder: folder, retry: RETRY };
  return {
    server,
    folder,
    fetch: ({ name = REPO, token, onProgress } = {}) =>
      fetchSnapshot({ ...request, name }, { token, hooks: { onProgress } }),
    blobs: () => [...Deno.readDirSync(blobsFolder)].map(({ name }) => name).toSorted(),
    read: (name) => Deno.readFile(join(blobsFolder, name)),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** One line of error that matches. */
async function rejects(promise: Promise<unknown>, expected: RegExp): Promise<void> {
  const error: unknown = await promise.then(() => undefined, (error) => error);
  assert(error instanceof HubError, `expected a HubError, found ${error}`);
  assert.match(error.message, expected);
  assert(!error.message.includes("\n"), error.message);
}

Deno.test("a download brings each file once, under its etag, and counts bytes", async () => {
  await using hub = await space({ entriesPerPage: 2 });
  const steps: [number, number][] = [];
  const snapshot = await hub.fetch({ onProgress: (...step) => steps.push(step) });
  assert.deepEqual(snapshot.files.map(({ path }) => path), [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
  ]);
  assert.deepEqual(hub.blobs(), snapshot.files.map(({ etag }) => etag).toSorted());
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
  assert.deepEqual(steps.at(-1), [100_004, 100_004]);
  assert(steps.every(([done], index) => index === 0 || done >= steps[index - 1][0]));
  const before = hub.server.requests.length;
  assert.deepEqual(await hub.fetch(), snapshot);
  const again = hub.server.requests.slice(before).map(({ path }) => path);
  assert(again.every((path) => path.startsWith("/api/")), again.join());
});

Deno.test("only what a model needs is downloaded", async () => {
  const other = [
    "pytorch_model.bin",
    "model.gguf",
    "onnx/model.safetensors",
    "consolidated.safetensors",
    "README.md",
  ];
  const extra = Object.fromEntries(other.map((name) => [name, "no"]));
  await using hub = await space({
    files: { ...FILES, ...extra, "chat_template.jinja": "{{ x }}" },
    entriesPerPage: 3,
  });
  const { files } = await hub.fetch();
  assert.deepEqual(files.map(({ path }) => path), [
    "config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "model.safetensors",
  ]);
});

Deno.test("a checkpoint in shards is downloaded by its index", async () => {
  const shards = {
    "model-00001-of-00002.safetensors": makeBytes(10),
    "model-00002-of-00002.safetensors": makeBytes(20),
  };
  const index = (names: string[]) =>
    JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [`t${i}`, name])) });
  const { "model.safetensors": _, ...small } = FILES;
  const files = { ...small, ...shards, "model.safetensors.index.json": index(Object.keys(shards)) };
  await using hub = await space({ files });
  assert.equal((await hub.fetch()).files.length, 5);
  for (const name of ["model-00003-of-00003.safetensors", "../config.json", "config.json"]) {
    await using bad = await space({ files: { ...files, "model.safetensors.index.json": index([name]) } });
    await rejects(bad.fetch(), /index\.json names, found none called /);
    assert.equal(bad.blobs().length, 1, "nothing but the index");
  }
  await using torn = await space({ files: { ...files, "model.safetensors.index.json": "{" } });
  await rejects(torn.fetch(), /Cannot read model\.safetensors\.index\.json .*expected JSON/);
});

Deno.test("a connection that drops is taken up where it ended", async () => {
  await using hub = await space();
  hub.server.faults.set("model.safetensors", [{ kind: "drop", afterBytes: 40_000 }]);
  await hub.fetch();
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
  const ranges = hub.server.requestsFor("model.safetensors").map(({ range }) => range);
  assert.deepEqual(ranges, [null, "bytes=40000-"]);
});

Deno.test("an answer that ends early without an error is not taken for the file", async () => {
  await using hub = await space();
  hub.server.faults.set("model.safetensors", [{ kind: "unsized", bytes: WEIGHTS.subarray(0, 40_000) }]);
  await hub.fetch();
  const ranges = hub.server.requestsFor("model.safetensors").map(({ range }) => range);
  assert.deepEqual(ranges, [null, "bytes=40000-"]);
});

Deno.test("a download that was interrupted for good leaves no blob, and the next one goes on from there", async () => {
  await using hub = await space();
  const drop: Fault = { kind: "drop", afterBytes: 10_000 };
  hub.server.faults.set("model.safetensors", [drop, drop, drop]);
  await rejects(hub.fetch(), /the connection ended before; run again to go on/);
  assert(!hub.blobs().includes(sha256(WEIGHTS)));
  assert.equal((await hub.read(`${sha256(WEIGHTS)}.incomplete`)).byteLength, 30_000);
  await hub.fetch();
  assert.equal(hub.server.requestsFor("model.safetensors").at(-1)!.range, "bytes=30000-");
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
  assert(!hub.blobs().some((name) => name.endsWith(".incomplete")));
});

Deno.test("a part that an earlier run left damaged, or longer than the file, is downloaded again", async () => {
  for (const left of [new Uint8Array(5000), new Uint8Array(100_000), new Uint8Array(200_000)]) {
    await using hub = await space();
    await Deno.writeFile(join(hub.folder, "blobs", `${sha256(WEIGHTS)}.incomplete`), left);
    await hub.fetch();
    assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
  }
});

Deno.test("a server that knows no ranges sends the file from its beginning", async () => {
  await using hub = await space();
  await Deno.writeFile(join(hub.folder, "blobs", `${sha256(WEIGHTS)}.incomplete`), WEIGHTS.subarray(0, 5000));
  hub.server.faults.set("model.safetensors", [{ kind: "ignore-range" }]);
  await hub.fetch();
  assert.deepEqual(hub.server.requestsFor("model.safetensors").map(({ range }) => range), ["bytes=5000-"]);
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
});

Deno.test("an answer that goes on past the file's end is refused where it does", async () => {
  await using hub = await space();
  hub.server.faults.set("model.safetensors", [{ kind: "unsized", bytes: makeBytes(150_000) }]);
  await rejects(
    hub.fetch(),
    /expected model\.safetensors of 100000 bytes, found more; nothing of it was kept/,
  );
  await hub.fetch();
});

Deno.test("a rest of a file of another size is refused", async () => {
  await using hub = await space();
  await Deno.writeFile(join(hub.folder, "blobs", `${sha256(WEIGHTS)}.incomplete`), WEIGHTS.subarray(0, 5000));
  hub.server.faults.set("model.safetensors", [{ kind: "total", size: 100_001 }]);
  await rejects(
    hub.fetch(),
    /expected model\.safetensors of 100000 bytes, found 100001; nothing of it was kept/,
  );
  await hub.fetch();
});

Deno.test("a blob of the wrong size is replaced", async () => {
  await using hub = await space();
  await Deno.writeFile(join(hub.folder, "blobs", sha256(WEIGHTS)), WEIGHTS.subarray(0, 5000));
  await hub.fetch();
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
});

for (const size of [99_999, 100_001, 0]) {
  Deno.test(`a file of ${size} bytes where 100000 are listed is refused`, async () => {
    await using hub = await space();
    hub.server.faults.set("model.safetensors", [{ kind: "replace", bytes: makeBytes(size) }]);
    await rejects(hub.fetch(), new RegExp(`expected model.safetensors of 100000 bytes, found ${size}`));
    assert(!hub.blobs().includes(sha256(WEIGHTS)));
  });
}

for (const path of ["model.safetensors", "config.json"]) {
  Deno.test(`${path} with another content than its hash is refused, and nothing of it is kept`, async () => {
    await using hub = await space();
    const bytes = hub.server.files.get(path)!.slice();
    bytes[bytes.length - 1] ^= 1;
    hub.server.faults.set(path, [{ kind: "replace", bytes }]);
    await rejects(hub.fetch(), new RegExp(`expected ${path} with the hash [0-9a-f]+, found another content`));
    const expected = path === "config.json" ? 0 : 2;
    assert.equal(hub.blobs().length, expected, hub.blobs().join());
    await hub.fetch();
  });
}

Deno.test("the token goes to the hub and to no other origin", async () => {
  await using hub = await space({ token: "hf_right", entriesPerPage: 1 });
  await hub.fetch({ token: "hf_right" });
  for (const { origin, authorization, path } of hub.server.requests) {
    assert.equal(authorization, origin === "hub" ? "Bearer hf_right" : null, path);
  }
  assert(hub.server.requests.some(({ origin }) => origin === "cdn"));
  // Nor where the hub says that the next page of a listing is.
  await using other = await space({ token: "hf_right", entriesPerPage: 1, pagesOnCdn: true });
  await other.fetch({ token: "hf_right" });
  const pages = other.server.requests.filter(({ origin, path }) =>
    origin === "cdn" && path.startsWith("/api/")
  );
  assert.deepEqual(pages.map(({ authorization }) => authorization), [null, null]);
});

Deno.test("a gated repository says how to get in", async () => {
  await using hub = await space({ token: "right" });
  await rejects(hub.fetch(), /found a gated one \(HTTP 401\); set HF_TOKEN/);
  await rejects(hub.fetch({ token: "wrong" }), /request access at http.*tester\/tiny with the account/);
  await hub.fetch({ token: "right" });
});

Deno.test("a repository or revision that is not there is said to be missing", async () => {
  await using hub = await space();
  await rejects(
    hub.fetch({ name: "tester/other" }),
    /a repository at .*tester\/other or a folder tester\/other here/,
  );
  await rejects(hub.fetch({ name: `${REPO}@v9` }), /expected a branch, tag or commit v9 at .*found none/);
  await hub.fetch({ name: `${REPO}@refs/pr/1` });
});

for (const status of [429, 500, 503]) {
  for (const key of ["revision", "tree", "config.json", "model.safetensors"]) {
    Deno.test(`HTTP ${status} to ${key} is tried again, and not for ever`, async () => {
      await using hub = await space();
      const fault: Fault = { kind: "status", status, headers: { "retry-after": "0" } };
      hub.server.faults.set(key, [fault, fault]);
      await hub.fetch();
      await Deno.remove(join(hub.folder, "blobs"), { recursive: true });
      await Deno.mkdir(join(hub.folder, "blobs"));
      hub.server.faults.set(key, [fault, fault, fault]);
      await rejects(
        hub.fetch(),
        new RegExp(`HTTP ${status}\\).*run again later|found HTTP ${status}; run again later`),
      );
    });
  }
}

Deno.test("a server that asks for more than a minute of patience is not waited for", async () => {
  await using hub = await space();
  hub.server.faults.set("tree", [{ kind: "status", status: 429, headers: { "retry-after": "3600" } }]);
  await rejects(hub.fetch(), /HTTP 429\); run again later, or set HF_TOKEN/);
});

Deno.test("a repository without safetensors is refused by what it has", async () => {
  for (
    const [name, found] of [["pytorch_model.bin", "pytorch_model.bin"], ["x.gguf", "x.gguf"], [
      "notes",
      "2 other files",
    ]]
  ) {
    await using hub = await space({ files: { "config.json": "{}", [name]: "x" } });
    await rejects(hub.fetch(), new RegExp(`expected a model with model.safetensors or .*, found ${found}`));
    assert.deepEqual(hub.blobs(), []);
  }
});

for (const path of ["../evil.json", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a//b"]) {
  Deno.test(`a listing with ${path} is refused`, async () => {
    await using hub = await space({
      editEntry: (entry) => (entry.path === "tokenizer.json" ? { ...entry, path } : entry),
    });
    await rejects(hub.fetch(), /expected file names inside the repository, found /);
    assert.deepEqual(hub.blobs(), []);
  });
}

Deno.test("hashes of the hub that are none are refused: they become names in the cache", async () => {
  const edits: Record<string, unknown>[] = [
    { lfs: { oid: "../../evil", size: 100_000 } },
    { lfs: undefined, xetHash: undefined, oid: "../evil" },
    { size: -1 },
    { lfs: { oid: sha256(WEIGHTS), size: "1" } },
  ];
  for (const edit of edits) {
    await using hub = await space({
      editEntry: (entry) => (entry.path === "model.safetensors" ? { ...entry, ...edit } : entry),
    });
    await rejects(hub.fetch(), /expected a listing of files|expected a hash of model\.safetensors/);
  }
  await using hub = await space({ commit: "../../evil" });
  await rejects(hub.fetch(), /expected a commit's hash of the hub, found "\.\.\/\.\.\/evil"/);
});

Deno.test("no hub at all: one line that names it", async () => {
  const hub = await space();
  await hub[Symbol.asyncDispose]();
  await rejects(
    hub.fetch(),
    /expected http:\/\/127\.0\.0\.1:\d+ to answer, found no connection \(.*refused.*HF_HUB_OFFLINE=1/,
  );
});

Deno.test("files on a host that was not allowed: one line that names it and the variable", async () => {
  // The tests may connect to 127.0.0.1 alone; this is the same machine under another name.
  await using hub = await space({ cdnHost: "localhost" });
  await rejects(
    hub.fetch(),
    /they lie on localhost:\d+; if you trust that host, set KEEL_HUB_HOSTS=localhost:\d+/,
  );
});

Deno.test("a connection that falls silent is given up and taken up again", async () => {
  await using hub = await space();
  const { server: { endpoint, faults }, folder } = hub;
  faults.set("model.safetensors", [{ kind: "stall" }]);
  const name = parseHubName(REPO);
  const client = createHubClient({ name, endpoint });
  const file = {
    path: "model.safetensors",
    sizeBytes: WEIGHTS.byteLength,
    etag: sha256(WEIGHTS),
    hash: "sha256",
  } as const;
  const common = {
    client,
    repo: REPO,
    commit: COMMIT,
    repoFolder: folder,
    locksFolder: folder,
    retry: RETRY,
  };
  await fetchBlob(file, { ...common, idleMs: 50 });
  assert.equal(hub.server.requestsFor("model.safetensors").length, 2);
});

Deno.test("of two downloads at once of one file, one brings it and the other waits", async () => {
  await using hub = await space({ partDelayMs: 20 });
  await Promise.all([hub.fetch(), hub.fetch()]);
  assert.equal(hub.server.requestsFor("model.safetensors").length, 1);
  assert.equal(sha256(await hub.read(sha256(WEIGHTS))), sha256(WEIGHTS));
});
