/**
 * The project's documents, taken apart: code blocks, command lines, headings and links.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../sources.ts";

/** Where Markdown lies that readers see. */
const FOLDERS = ["", "docs", "examples"];

/** A document. */
export interface Document {
  /** From the project's root, with slashes. */
  readonly path: string;
  readonly text: string;
}

/** All of them. */
export const DOCUMENTS: readonly Document[] = FOLDERS.flatMap((folder) =>
  readdirSync(join(ROOT, folder))
    .filter((name) => name.endsWith(".md"))
    .map((name) => (folder === "" ? name : `${folder}/${name}`))
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }))
);

/** A block of code. */
export interface CodeBlock {
  /** What stands behind the fence; `indented` of one by four spaces. */
  readonly language: string;
  /** Of its first line, from 1. */
  readonly line: number;
  readonly lines: readonly string[];
}

/** Fenced blocks, and those that are indented by four spaces behind an empty line. */
export function codeBlocks(text: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: { language: string; line: number; lines: string[] } | undefined;
  let previous = "";
  for (const [index, line] of text.split("\n").entries()) {
    const fence = line.match(/^```(.*)$/);
    const isIndented = /^ {4}\S/.test(line) && (previous === "" || open?.language === "indented");
    if (open?.language === "indented" && !isIndented) open = undefined;
    if (fence && open) open = undefined;
    else if (fence) blocks.push(open = { language: fence[1], line: index + 2, lines: [] });
    else if (open) open.lines.push(open.language === "indented" ? line.slice(4) : line);
    else if (isIndented) {
      blocks.push(open = { language: "indented", line: index + 1, lines: [line.slice(4)] });
    }
    previous = line;
  }
  return blocks;
}

/** The text without its blocks of code; lines keep their numbers. */
export function prose(text: string): string {
  const lines = text.split("\n");
  for (const block of codeBlocks(text)) {
    for (let index = 0; index < block.lines.length; index++) lines[block.line - 1 + index] = "";
  }
  return lines.join("\n");
}

/** A command line of a document. */
export interface CommandLine {
  /** File and line. */
  readonly place: string;
  readonly words: readonly string[];
}

/** Programs that lines of blocks start with; in blocks of `sh` every line is a command. */
const PROGRAM = /^(?:[A-Z_]+=\S+ )*(?:deno|npx|bash|git|cd|cp|python3?|tensorboard)\b/;

/** Command lines of blocks, and those of `deno` and `npx` within the text. */
export function commandLines({ path, text }: Document): CommandLine[] {
  const ofBlocks = codeBlocks(text).flatMap(({ language, line, lines }) =>
    lines.map((source, index) => ({ language, source, place: `${path}:${line + index}` }))
  ).filter(({ language, source }) =>
    language === "sh" ? source.trim() !== "" : language === "indented" && PROGRAM.test(source)
  );
  const plain = prose(text);
  const inline = [...plain.matchAll(/`((?:deno|npx) [^`]+)`/g)].map(({ 1: source, index }) => ({
    source,
    place: `${path}:${plain.slice(0, index).split("\n").length}`,
  }));
  return [...ofBlocks, ...inline].map(({ source, place }) => ({ place, words: shellWords(source) }));
}

/** Words as a shell makes them of a line without expansions; a comment is dropped. */
export function shellWords(line: string): string[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)];
  const end = words.findIndex(([word]) => word.startsWith("#"));
  return (end < 0 ? words : words.slice(0, end)).map(([, double, single, bare]) => double ?? single ?? bare);
}

/** Anchors of a document as GitHub makes them of its headings. */
export function anchors(text: string): string[] {
  const seen = new Map<string, number>();
  return [...prose(text).matchAll(/^#{1,6} (.+)$/gm)].map(([, heading]) => {
    const slug = heading.trim().toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
}

/** Targets of links and pictures, those of the web excepted. */
export function relativeLinks(text: string): string[] {
  return [...prose(text).matchAll(/\]\(([^()\s]+)\)/g)]
    .map(([, target]) => target)
    .filter((target) => !/^[a-z]+:/.test(target));
}
