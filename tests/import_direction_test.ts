import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Layers from the top; each may import itself and those below. */
const LAYERS = ["mod.ts", "train", "engine", "shaders"];

/** The project's own version is read from here; it belongs to no layer. */
const PROJECT_FILE = "deno.json";

/** Packages that layers without a file system may use. */
const PACKAGES_OF_SHADERS = ["wgsl-preprocessor"];

interface Source {
  /** From the project's root, with slashes. */
  path: string;
  layer: number;
  /** Without comments. */
  code: string;
}

const sources = LAYERS.flatMap((name, layer) =>
  filesOf(join(ROOT, name)).map((file): Source => ({
    path: slashed(relative(ROOT, file)),
    layer,
    code: withoutComments(readFileSync(file, "utf8")),
  }))
);

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
  for (const { path, code } of pure) {
    assert.doesNotMatch(code, /\b(?:Deno|process|Buffer|require)\b\s*[.([]/, path);
    for (const specifier of specifiersOf(code).filter((one) => !one.startsWith("."))) {
      assert.ok(PACKAGES_OF_SHADERS.includes(specifier), `${path} imports ${specifier}`);
    }
  }
});

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

/** Removes comments; a pair of slashes inside a string is kept when a colon stands before it. */
function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|[^:])\/\/.*$/gm, "$1");
}

function filesOf(path: string): string[] {
  if (!existsSync(path)) return [];
  if (path.endsWith(".ts")) return [path];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(path, name));
}

function slashed(path: string): string {
  return path.replaceAll(sep, "/");
}
