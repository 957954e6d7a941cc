import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../sources.ts";
import { DOCUMENTS } from "./markdown.ts";

const TEXT = DOCUMENTS.find(({ path }) => path === "CONTRIBUTING.md")!.text;

/** Sections, and files that each must name. */
const CHECKLISTS: readonly (readonly [heading: string, example: string, files: number])[] = [
  ["Add an op", "swiglu", 11],
  ["Add a pairwise loss", "hinge", 10],
  ["Add a model", "qwen3", 10],
];

for (const [heading, example, count] of CHECKLISTS) {
  Deno.test(`${heading}: every file of the list is there, and is about the example`, () => {
    const section = TEXT.split(`\n## ${heading}\n`)[1].split("\n## ")[0];
    assert.ok(section.includes(`As \`${example}\` is`), example);
    const files = listedFiles(section);
    assert.equal(files.length, count, files.join("\n"));
    for (const file of files) {
      assert.ok(existsSync(join(ROOT, file)), `${file} is not there`);
      assert.match(
        readFileSync(join(ROOT, file), "utf8"),
        new RegExp(example, "i"),
        `${file} has no ${example}`,
      );
    }
  });
}

/** What stands before the colon of each item. */
function listedFiles(section: string): string[] {
  const items = [...section.matchAll(/^- ((?:`[^`]+`,? ?)+):/gm)].map(([, names]) => names);
  return items.flatMap((names) => [...names.matchAll(/`([^`]+)`/g)].map(([, name]) => name));
}
