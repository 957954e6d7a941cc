import assert from "node:assert/strict";
import { join } from "node:path";
import { HubError } from "../../train/hub/hub_error.ts";
import { isHubName, parseHubName } from "../../train/hub/hub_name.ts";

const NAMES: [string, string, string][] = [
  ["HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M", "main"],
  ["meta-llama/Llama-3.2-1B@main", "meta-llama/Llama-3.2-1B", "main"],
  ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
  ["a/b@v1.0", "a/b", "v1.0"],
  ["a/b_c.d@0123456789abcdef0123456789abcdef01234567", "a/b_c.d", "0123456789abcdef0123456789abcdef01234567"],
];
const OTHERS = [
  "gpt2",
  "./a/b",
  "/a/b",
  "../a/b",
  "a/..",
  "../b",
  "a/b/c",
  "a/",
  "/b",
  "a/b@",
  "a/b@../../x",
  "a/b@refs/../../x",
  "a/b@/x",
  "a/b@x/",
  "a/b@.x",
  "a/b@x.",
  "a--b/c",
  "a/b..c",
  "a/b.",
  "a/-b",
  "C:\\a\\b",
  "a/b c",
  `a/${"b".repeat(97)}`,
  "",
];

Deno.test("owner/name and owner/name@revision are names on the hub", () => {
  for (const [text, repo, revision] of NAMES) {
    assert.deepEqual(parseHubName(text), { repo, revision });
    assert(isHubName(text), text);
  }
});

Deno.test("paths and half names are not", () => {
  for (const text of OTHERS) {
    assert(!isHubName(text), text);
    assert.throws(() => parseHubName(text), HubError, text);
  }
});

Deno.test("a folder here wins over a name on the hub", async () => {
  const before = Deno.cwd();
  const folder = await Deno.makeTempDir();
  try {
    Deno.chdir(folder);
    assert(isHubName("models/llama"));
    await Deno.mkdir(join("models", "llama"), { recursive: true });
    assert(!isHubName("models/llama"));
    assert(isHubName("models/llama@main"));
  } finally {
    Deno.chdir(before);
    await Deno.remove(folder, { recursive: true });
  }
});
