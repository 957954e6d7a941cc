/**
 * What asking for help loads: it has to answer at once.
 *
 * @module
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../", import.meta.url);

interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly { isDynamic?: boolean; code?: { specifier?: string } }[];
}

/** Files of the project that start with the entry, dynamic imports left out. */
async function staticModules(entry: string): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", entry],
    cwd: fileURLToPath(ROOT),
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const { roots, modules } = JSON.parse(new TextDecoder().decode(stdout));
  const known = new Map((modules as Module[]).map((module) => [module.specifier, module]));
  const found = new Set<string>(roots);
  // The set grows while it is walked.
  for (const specifier of found) {
    for (const { isDynamic, code } of known.get(specifier)?.dependencies ?? []) {
      if (!isDynamic && code?.specifier) found.add(code.specifier);
    }
  }
  assert.ok(found.size > 30, "a graph that was read");
  return [...found].filter((specifier) => specifier.startsWith(ROOT.href))
    .map((specifier) => specifier.slice(ROOT.href.length));
}

/** Options and their defaults, and nothing of a device. */
const PLAIN = ["engine/ops/spo_penalty_options.ts"];

for (const entry of ["train/launch.ts", "train/cli.ts"]) {
  Deno.test(`${entry} starts without the engine and without any command's program`, async () => {
    const files = await staticModules(entry);
    assert.deepEqual(files.filter((file) => file.startsWith("engine/") && !PLAIN.includes(file)), []);
    assert.deepEqual(files.filter((file) => /^train\/commands\/run_/.test(file)), []);
    assert.ok(files.includes("train/commands/registry.ts"));
  });
}

Deno.test("what of the engine is loaded has no imports", async () => {
  for (const file of PLAIN) {
    assert.doesNotMatch(await Deno.readTextFile(new URL(file, ROOT)), /^import (?!type )/m, file);
  }
});
