import assert from "node:assert/strict";
import { homedir } from "node:os";
import { join } from "node:path";
import { HubError } from "../../train/hub/hub_error.ts";
import { hubSettings } from "../../train/hub/hub_settings.ts";

const settings = (values: Record<string, string>) => hubSettings((name) => values[name]);
const nowhere = { HF_TOKEN_PATH: "/nowhere/token" };

Deno.test("without variables: the public hub, its download hosts, and the folder that Hugging Face's tools use", () => {
  const { endpoint, hosts, cacheFolder, isOffline, token } = settings(nowhere);
  assert.equal(endpoint, "https://huggingface.co");
  assert.deepEqual(hosts, ["huggingface.co:443", "*.hf.co:443", "*.huggingface.co:443"]);
  assert.equal(cacheFolder, join(homedir(), ".cache", "huggingface", "hub"));
  assert.deepEqual([isOffline, token], [false, undefined]);
});

Deno.test("the cache's folder: HF_HUB_CACHE before HF_HOME before XDG_CACHE_HOME", () => {
  const all = { HF_HUB_CACHE: "/a", HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c", XDG_CACHE_HOME: "/d" };
  const expected: [keyof typeof all, string][] = [
    ["HF_HUB_CACHE", "/a"],
    ["HUGGINGFACE_HUB_CACHE", "/b"],
    ["HF_HOME", "/c/hub"],
    ["XDG_CACHE_HOME", "/d/huggingface/hub"],
  ];
  const values: Record<string, string> = { ...nowhere, ...all };
  for (const [name, folder] of expected) {
    assert.equal(settings(values).cacheFolder, folder);
    delete values[name];
  }
  assert.equal(settings({ HF_HOME: "~/models" }).cacheFolder, join(homedir(), "models", "hub"));
});

Deno.test("a hub of one's own is the only host, and more are named", () => {
  const own = { ...nowhere, HF_ENDPOINT: "http://127.0.0.1:8080/" };
  assert.deepEqual(settings(own).hosts, ["127.0.0.1:8080"]);
  assert.equal(settings(own).endpoint, "http://127.0.0.1:8080");
  const mirror = {
    ...nowhere,
    HF_ENDPOINT: "https://mirror.example",
    KEEL_HUB_HOSTS: "*.hf.co, files.example:8443",
  };
  assert.deepEqual(settings(mirror).hosts, ["mirror.example:443", "*.hf.co", "files.example:8443"]);
});

Deno.test("addresses that are none are refused: hosts become permissions", () => {
  for (const HF_ENDPOINT of ["mirror.example", "file:///etc", "ftp://mirror.example"]) {
    assert.throws(() => settings({ HF_ENDPOINT }), HubError);
  }
  for (const KEEL_HUB_HOSTS of ["*", "https://a.example", "a.example b.example", "a.example:x"]) {
    assert.throws(() => settings({ ...nowhere, KEEL_HUB_HOSTS }), HubError, KEEL_HUB_HOSTS);
  }
});

Deno.test("the token: HF_TOKEN, else the file in HF_HOME", async () => {
  const folder = await Deno.makeTempDir();
  try {
    assert.equal(settings({ HF_HOME: folder }).token, undefined);
    await Deno.writeTextFile(join(folder, "token"), "hf_file\n");
    assert.equal(settings({ HF_HOME: folder }).token, "hf_file");
    assert.equal(settings({ HF_HOME: folder, HF_TOKEN: " hf_variable " }).token, "hf_variable");
    assert.equal(settings({ HF_HOME: folder, HF_TOKEN: "" }).token, "hf_file");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("HF_HUB_OFFLINE is read as Hugging Face's tools read it", () => {
  for (const text of ["1", "ON", "yes", "True"]) {
    assert(settings({ ...nowhere, HF_HUB_OFFLINE: text }).isOffline, text);
  }
  for (const text of ["0", "", "off", "no"]) {
    assert(!settings({ ...nowhere, HF_HUB_OFFLINE: text }).isOffline, text);
  }
});
