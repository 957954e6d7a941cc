/**
 * The download as it runs for users: in a process of its own, with the least permissions.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { downloadModel } from "../../train/hub/download_model.ts";
import { findInCache, locksFolderOf, repoFolderOf } from "../../train/hub/hub_cache.ts";
import { HubError } from "../../train/hub/hub_error.ts";
import { type HubSettings, hubSettings } from "../../train/hub/hub_settings.ts";
import { resolveModel } from "../../train/hub/resolve_model.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { architectureOf } from "../../train/models/registry.ts";
import { checkModel } from "../../train/models/model_files.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { createRandom, fillNormal } from "../../train/random.ts";
import { RunStoppedError } from "../../train/session.ts";
import { type HubServer, type HubServerOptions, REPO, sha256, startHubServer } from "./hub_server.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const RETRY = { attempts: 2, delayMs: 1 };
const CONFIG = {
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 32,
};

/** The files of a model of random weights. */
async function modelFiles(): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
  const folder = await Deno.makeTempDir();
  const random = createRandom(1);
  const { shapes } = architectureOf(parseModelConfig(CONFIG, { file: "test" }));
  const tensors = [...shapes].map(([name, shape]) => ({
    name,
    shape,
    data: () => fillNormal(random, { target: new Float32Array(shape.reduce((a, b) => a * b, 1)), std: 0.1 }),
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { dtype: "f32" });
  const weights = await Deno.readFile(join(folder, "model.safetensors"));
  await Deno.remove(folder, { recursive: true });
  const tokenizer = Object.fromEntries(characterTokenizerFiles("0123456789+-:,$", { eos: "$" }));
  const config = new TextEncoder().encode(JSON.stringify(CONFIG));
  return { "config.json": config, ...tokenizer, "model.safetensors": weights, "pytorch_model.bin": config };
}

const FILES = await modelFiles();
const WEIGHTS = FILES["model.safetensors"];

interface Space extends AsyncDisposable {
  readonly server: HubServer;
  readonly cacheFolder: string;
  readonly settings: HubSettings;
}

async function space(options: Partial<HubServerOptions> = {}, folder = "hub"): Promise<Space> {
  const server = startHubServer({ files: FILES, ...options });
  const home = await Deno.makeTempDir({ prefix: "keel-hub-" });
  const cacheFolder = join(home, folder);
  const values: Record<string, string> = {
    HF_ENDPOINT: server.endpoint,
    HF_HUB_CACHE: cacheFolder,
    HF_HOME: home,
    KEEL_HUB_HOSTS: server.cdn.slice("http://".length),
  };
  return {
    server,
    cacheFolder,
    settings: hubSettings((name) => values[name]),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await Deno.remove(home, { recursive: true });
    },
  };
}

Deno.test("a model is downloaded, loads, and is then found without the network", async () => {
  // A comma separates paths in Deno's permissions.
  await using hub = await space({ token: "secret", entriesPerPage: 2 }, "a, b");
  const { cacheFolder } = hub;
  // And caches lie on other disks.
  await Deno.mkdir(`${cacheFolder} there`);
  await Deno.symlink(`${cacheFolder} there`, cacheFolder);
  const settings = { ...hub.settings, token: "secret" };
  const steps: [number, number][] = [];
  const folder = await downloadModel(REPO, { settings, onProgress: (...step) => steps.push(step) });
  const { config, tokenizer } = await checkModel(folder);
  assert.deepEqual([config.vocab_size, tokenizer.vocabSize], [16, 16]);
  assert.equal(steps.at(-1)![0], steps.at(-1)![1]);
  const expected = Object.keys(FILES).filter((name) => name !== "pytorch_model.bin");
  assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).toSorted(), expected.toSorted());
  await hub.server[Symbol.asyncDispose]();
  assert.equal(await findInCache(REPO, { cacheFolder, fromOtherTools: false }), folder);
});

Deno.test("the download can connect to the hosts it was given, and to no other", async () => {
  await using hub = await space();
  const { endpoint } = hub.settings;
  const settings = { ...hub.settings, hosts: [endpoint.slice("http://".length)] };
  const error: Error = await downloadModel(REPO, { settings, retry: RETRY }).catch((error) => error);
  assert(error instanceof HubError, String(error));
  const host = hub.server.cdn.slice("http://".length);
  assert(
    error.message.includes(`they lie on ${host}; if you trust that host, set KEEL_HUB_HOSTS=${host}`),
    error.message,
  );
  assert(hub.server.requests.every(({ origin }) => origin === "hub"), "the other was not even asked");
  assert.equal(await findInCache(REPO, { cacheFolder: hub.cacheFolder }), undefined);
});

Deno.test("the download can read and write nothing but the model's folder in the cache", async () => {
  await using hub = await space();
  const { cacheFolder, settings } = hub;
  const secret = join(cacheFolder, "secret");
  await Deno.mkdir(join(repoFolderOf(cacheFolder, REPO), "blobs"), { recursive: true });
  await Deno.mkdir(secret);
  await Deno.writeTextFile(join(secret, "stolen"), "mine");
  // A link out of the folder where the weights are to be written.
  await Deno.symlink(
    join(secret, "stolen"),
    join(repoFolderOf(cacheFolder, REPO), "blobs", `${sha256(WEIGHTS)}.incomplete`),
  );
  await assert.rejects(downloadModel(REPO, { settings, retry: RETRY }), /Requires (read|write) access to/);
  assert.equal(await Deno.readTextFile(join(secret, "stolen")), "mine");
});

Deno.test("two processes that download the same model at once fetch each file once", async () => {
  await using hub = await space({ partDelayMs: 100 });
  const { settings, cacheFolder } = hub;
  const waits: string[] = [];
  const download = () => downloadModel(REPO, { settings, onWait: (path) => waits.push(path) });
  const [first, second] = await Promise.all([download(), download()]);
  assert.equal(first, second);
  for (const name of Object.keys(FILES).filter((name) => name !== "pytorch_model.bin")) {
    assert.equal(hub.server.requestsFor(name).length, 1, name);
  }
  assert.equal(sha256(await Deno.readFile(join(first, "model.safetensors"))), sha256(WEIGHTS));
  assert.equal(await findInCache(REPO, { cacheFolder, fromOtherTools: false }), first);
});

Deno.test("a download that was stopped leaves no snapshot, and the next one goes on from there", async () => {
  const weights = new Uint8Array(2_000_000).map((_, index) => index * 7 >> 3);
  await using hub = await space({ files: { ...FILES, "model.safetensors": weights }, partDelayMs: 5 });
  const { settings, cacheFolder } = hub;
  const stop = new AbortController();
  const onProgress = (done: number) => {
    if (done > 200_000) stop.abort();
  };
  await assert.rejects(downloadModel(REPO, { settings, signal: stop.signal, onProgress }), {
    name: "AbortError",
  });
  assert.equal(await findInCache(REPO, { cacheFolder }), undefined);
  const blob = join(repoFolderOf(cacheFolder, REPO), "blobs", sha256(weights));
  const { size } = await Deno.stat(`${blob}.incomplete`);
  assert(size > 0 && size < weights.byteLength, `${size}`);
  const folder = await downloadModel(REPO, { settings });
  assert.equal(hub.server.requestsFor("model.safetensors").at(-1)!.range, `bytes=${size}-`);
  assert.equal(sha256(await Deno.readFile(join(folder, "model.safetensors"))), sha256(weights));
});

Deno.test("a cache that cannot be written to is refused in one line", async () => {
  await using hub = await space();
  await Deno.writeTextFile(hub.cacheFolder, "not a folder");
  await assert.rejects(
    downloadModel(REPO, { settings: hub.settings }),
    (error) =>
      error instanceof HubError && /Cannot keep models in .*HF_HUB_CACHE names another/.test(error.message),
  );
});

Deno.test({
  name: "a download that another program kills says how to go on",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await using hub = await space({ partDelayMs: 1000 });
    const onProgress = () => {
      const list = new Deno.Command("ps", { args: ["-A", "-o", "pid=,ppid=,args="] }).outputSync();
      for (const line of new TextDecoder().decode(list.stdout).split("\n")) {
        const [, pid, parent] = /^ *(\d+) +(\d+) .*hub\/download\.ts/.exec(line) ?? [];
        if (Number(parent) === Deno.pid) Deno.kill(Number(pid), "SIGKILL");
      }
    };
    await assert.rejects(
      downloadModel(REPO, { settings: hub.settings, onProgress }),
      (error) =>
        error instanceof HubError && /found it stopped by SIGKILL; run again to go on/.test(error.message),
    );
    assert.equal(await findInCache(REPO, { cacheFolder: hub.cacheFolder }), undefined);
  },
});

Deno.test("a branch that has moved is noticed when the hub is asked", async () => {
  await using hub = await space();
  const first = await downloadModel(REPO, { settings: hub.settings });
  const commit = "f".repeat(40);
  await using moved = await space({ commit });
  const settings = { ...moved.settings, cacheFolder: hub.cacheFolder };
  const second = await downloadModel(REPO, { settings });
  assert.notEqual(first, second);
  assert.equal(await findInCache(REPO, { cacheFolder: hub.cacheFolder }), second);
  assert(moved.server.requests.every(({ path }) => path.startsWith("/api/")), "the same blobs serve both");
});

/** With the variables that users set, for as long as the body takes. */
async function withVariables(values: Record<string, string>, body: () => Promise<void>): Promise<void> {
  const before = Object.keys(values).map((name) => [name, Deno.env.get(name)] as const);
  try {
    for (const [name, value] of Object.entries(values)) Deno.env.set(name, value);
    await body();
  } finally {
    for (const [name, value] of before) {
      value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
    }
  }
}

const variablesOf = ({ settings, cacheFolder, server }: Space): Record<string, string> => ({
  HF_ENDPOINT: settings.endpoint,
  HF_HUB_CACHE: cacheFolder,
  HF_HUB_OFFLINE: "",
  KEEL_HUB_HOSTS: server.cdn.slice("http://".length),
});

Deno.test("resolveModel downloads once, asks nobody after, and offline refuses what is not whole", async () => {
  await using hub = await space();
  const lines: string[] = [];
  const hooks = { log: (line: string) => void lines.push(line) };
  const offline = { ...variablesOf(hub), HF_HUB_OFFLINE: "1" };
  await withVariables(offline, async () => {
    await assert.rejects(
      resolveModel(REPO, hooks),
      /expected all of it in .*HF_HUB_OFFLINE is set, found it missing/,
    );
  });
  await withVariables(variablesOf(hub), async () => {
    const folder = await resolveModel(REPO, hooks);
    assert.deepEqual(lines, [
      `There is no folder ${REPO}: downloading it from ${hub.settings.endpoint} to ${hub.cacheFolder}`,
    ]);
    const before = hub.server.requests.length;
    assert.equal(await resolveModel(REPO, hooks), folder);
    assert.equal(hub.server.requests.length, before);
    await withVariables(offline, async () => {
      assert.equal(await resolveModel(REPO, hooks), folder);
      await Deno.remove(join(folder, "model.safetensors"));
      await assert.rejects(resolveModel(REPO, hooks), HubError);
    });
    assert.equal(await resolveModel(REPO, hooks), folder);
    await checkModel(folder);
    assert.equal(hub.server.requestsFor("model.safetensors").length, 1, "its blob was still there");
  });
});

Deno.test("resolveModel shows a bar in MiB, and stops as a run stops", async () => {
  const weights = new Uint8Array(3 * 2 ** 20);
  await using hub = await space({ files: { ...FILES, "model.safetensors": weights }, partDelayMs: 2 });
  await withVariables(variablesOf(hub), async () => {
    const stop = new AbortController();
    const steps: number[] = [];
    const progress = (label: string, total: number) => {
      assert.deepEqual([label, total], ["download, MiB", 4]);
      return {
        update: ({ step }: { step: number }) => {
          steps.push(step);
          if (step > 0) stop.abort();
        },
        finish: () => void steps.push(-1),
      };
    };
    const hooks = { log: () => {}, progress, signal: stop.signal };
    await assert.rejects(
      resolveModel(REPO, hooks),
      (error) => error instanceof RunStoppedError && /run again to go on/.test(error.message),
    );
    assert.equal(steps.at(-1), -1);
    await resolveModel(REPO, { ...hooks, signal: undefined });
    assert.equal(steps.at(-2), 4);
  });
});

Deno.test("deno task train takes a model from the hub, without the permission to use the network", async () => {
  await using hub = await space();
  const data = join(hub.cacheFolder, "pairs.jsonl");
  await Deno.mkdir(hub.cacheFolder, { recursive: true });
  await Deno.writeTextFile(data, JSON.stringify({ prompt: "1+1:", chosen: "2$", rejected: "3$" }));
  const run = async (env: Record<string, string>, model = REPO) => {
    const permissions = ["-R", "-W", "-E", "-S", "--allow-ffi", "--allow-run"];
    const args = ["train", "--model", model, "--data", data, "--dry-run", "--batch-size", "1"];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", ...permissions, "train/cli.ts", ...args],
      cwd: ROOT,
      env: { NO_COLOR: "1", ...variablesOf(hub), ...env },
    }).output();
    return { code, out: new TextDecoder().decode(stdout), error: new TextDecoder().decode(stderr) };
  };
  const missing = await run({}, "tester/other");
  assert.equal(missing.code, 1);
  assert.match(missing.error, /^error: Cannot download tester\/other: expected a repository at .*\n$/m);
  const first = await run({});
  assert.equal(first.code, 0, first.error);
  assert.match(first.out, new RegExp(`^There is no folder ${REPO}: downloading it from `, "m"));
  assert.match(first.error, /download, MiB {2}1\/1/);
  await hub.server[Symbol.asyncDispose]();
  const second = await run({ HF_HUB_OFFLINE: "1" });
  assert.equal(second.code, 0, second.error);
  assert.doesNotMatch(second.out, /downloading/);
});

Deno.test({
  name: "what the system says of a write that fails comes through",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const weights = new Uint8Array(2_000_000).map((_, index) => index * 7 >> 3);
    await using hub = await space({ files: { ...FILES, "model.safetensors": weights } });
    const [repoFolder, locksFolder] = [
      repoFolderOf(hub.cacheFolder, REPO),
      locksFolderOf(hub.cacheFolder, REPO),
    ];
    await Deno.mkdir(join(repoFolder, "blobs"), { recursive: true });
    await Deno.mkdir(locksFolder, { recursive: true });
    const request = { name: REPO, endpoint: hub.settings.endpoint, repoFolder, locksFolder };
    // A full disk cannot be had here; a limit on the size of files fails in the same place.
    const script = 'trap "" XFSZ; ulimit -f 100; exec "$@"';
    const program = [
      "run",
      "--no-check",
      "-A",
      join(ROOT, "train", "hub", "download.ts"),
      JSON.stringify(request),
    ];
    const { code, stdout } = await new Deno.Command("bash", {
      args: ["-c", script, "bash", Deno.execPath(), ...program],
      cwd: ROOT,
    }).output();
    assert.equal(code, 1);
    const last = JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
    assert.match(last.message, /^Cannot write .*incomplete: File too large/);
    assert(last.isExpected);
  },
});
