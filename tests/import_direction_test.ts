import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { LAYERS, ROOT, slashed, type Source, sources, withoutComments } from "./sources.ts";

/** The project's own version is read from here; it belongs to no layer. */
const PROJECT_FILE = "deno.json";

/** Packages that layers without a file system may use. */
const PACKAGES_OF_SHADERS = ["wgsl-preprocessor"];

/** Those, and packages of training that run in browsers. */
const PACKAGES_OF_BROWSERS = [...PACKAGES_OF_SHADERS, "zod", "@huggingface/tokenizers", "@huggingface/jinja"];

Deno.test("imports point down: mod.ts, train/, engine/, shaders/", () => {
  assert.ok(sources.length > 40, `found ${sources.length} files`);
  let checked = 0;
  for (const { path, layer, code } of sources) {
    for (const specifier of specifiersOf(code).filter((one) => one.startsWith("."))) {
      const target = slashed(join(dirname(path), specifier));
      if (target === PROJECT_FILE && layer === LAYERS.indexOf("train")) continue;
      const targetLayer = LAYERS.indexOf(target.split("/")[0]);
      assert.ok(targetLayer >= 0, `${path} imports ${target}, which is in no layer`);
      assert.ok(targetLayer >= layer, `${path} imports ${target}: backwards`);
      assert.ok(existsSync(join(ROOT, target)), `${path} imports ${target}, which is not there`);
      checked++;
    }
  }
  assert.ok(checked > 100, `found ${checked} imports`);
});

Deno.test("engine/ and shaders/ use neither Deno's nor Node's API, nor other packages", () => {
  const pure = sources.filter(({ layer }) => layer >= LAYERS.indexOf("engine"));
  assertPortable(pure, PACKAGES_OF_SHADERS);
});

Deno.test("all that train/browser.ts reaches uses neither Deno's nor Node's API, nor other packages", () => {
  const reached = reachedFrom("train/browser.ts");
  assert.ok(reached.some(({ path }) => path === "train/losses/registry.ts"), "the losses are among it");
  assertPortable(reached, PACKAGES_OF_BROWSERS);
});

/** A module and what it imports, types too, and so on. */
function reachedFrom(entry: string): Source[] {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const paths = new Set([entry]);
  // A set's loop comes to what is added meanwhile.
  for (const path of paths) {
    const { code } = byPath.get(path) ?? assert.fail(`${path} is not there`);
    const own = specifiersOf(code).filter((specifier) => specifier.startsWith("."));
    for (const specifier of own) paths.add(slashed(join(dirname(path), specifier)));
  }
  return [...paths].map((path) => byPath.get(path)!);
}

function assertPortable(files: readonly Source[], packages: readonly string[]): void {
  for (const { path, code } of files) {
    assert.doesNotMatch(code, /\b(?:Deno|process|Buffer|require)\b\s*[.([]/, path);
    for (const specifier of specifiersOf(code).filter((one) => !one.startsWith("."))) {
      assert.ok(packages.includes(specifier), `${path} imports ${specifier}`);
    }
  }
}

Deno.test("specifiersOf finds every form of import, and none in comments", () => {
  const code = withoutComments(`
    import "./a.ts"; // import "./no.ts";
    import { b } from "./b.ts";
    import type {
      C,
    } from './c.ts';
    export * from "./d.ts";
    const e = await import("./e.ts");
    /** import { f } from "./f.ts"; */
    const url = "https://x.org/path"; import "./g.ts";
    type H = import("./h.ts").H;
  `);
  assert.deepEqual(specifiersOf(code), ["a", "b", "c", "d", "e", "g", "h"].map((name) => `./${name}.ts`));
});

function specifiersOf(code: string): string[] {
  return [...code.matchAll(/\b(?:from|import)\s*\(?\s*["']([^"']+)["']/g)].map(([, specifier]) => specifier);
}
