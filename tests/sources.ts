/**
 * The project's own code, for tests that look at how it is written.
 *
 * @module
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The project's folder. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Layers from the top; each may import itself and those below. */
export const LAYERS: readonly string[] = ["mod.ts", "train", "engine", "shaders"];

/** One file. */
export interface Source {
  /** From the project's root, with slashes. */
  path: string;
  /** Its place in {@link LAYERS}. */
  layer: number;
  /** Without comments. */
  code: string;
}

/** All of them. */
export const sources: readonly Source[] = LAYERS.flatMap((name, layer) =>
  filesOf(join(ROOT, name)).map((file): Source => ({
    path: slashed(relative(ROOT, file)),
    layer,
    code: withoutComments(readFileSync(file, "utf8")),
  }))
);

/** Removes comments; a pair of slashes inside a string is kept when a colon stands before it. */
export function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|[^:])\/\/.*$/gm, "$1");
}

function filesOf(path: string): string[] {
  if (!existsSync(path)) return [];
  if (path.endsWith(".ts")) return [path];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(path, name));
}

/** A path as it stands in imports. */
export function slashed(path: string): string {
  return path.replaceAll(sep, "/");
}
