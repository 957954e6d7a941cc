import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT, slashed } from "../sources.ts";
import { anchors, type Document, DOCUMENTS, prose, relativeLinks } from "./markdown.ts";

/** Where a reader starts. */
const ENTRIES = ["README.md", "docs/guide.md"];

/** What stands in backticks and starts like a file of ours; placeholders and patterns are none. */
const OWN_PATH = /`((?:engine|shaders|train|tests|docs|examples)\/[\w./-]*(?:\.\w+|\/))`/g;

Deno.test("every relative link leads to a file, and every anchor to a heading of it", () => {
  const links = DOCUMENTS.flatMap((document) => relativeLinks(document.text).map((link) => [document, link]));
  assert.ok(links.length > 60, `found ${links.length} links`);
  assert.deepEqual(DOCUMENTS.flatMap(brokenLinks), []);
});

Deno.test("every file of ours that a document names is there", () => {
  const missing = DOCUMENTS.flatMap(({ path, text }) =>
    [...prose(text).matchAll(OWN_PATH)].map(([, file]) => file).filter((file) =>
      !existsSync(join(ROOT, file))
    )
      .map((file) => `${path}: ${file}`)
  );
  assert.deepEqual(missing, []);
});

Deno.test("every document is reached from README.md and from docs/guide.md", () => {
  for (const entry of ENTRIES) {
    const reached = reachedFrom(entry);
    const lost = DOCUMENTS.map(({ path }) => path).filter((path) => !reached.has(path));
    assert.deepEqual(lost, [], `from ${entry}`);
  }
});

Deno.test("a broken link and a broken anchor are found, code is passed over", () => {
  const text = [
    "# One heading: `code` in it",
    "[good](../README.md) [good](#one-heading-code-in-it) [web](https://example.org/x)",
    "[bad](no_such.md) [bad](#no-heading) [bad](../README.md#no-such-heading)",
    "",
    "    [code](not_a_link.md)",
  ].join("\n");
  assert.deepEqual(brokenLinks({ path: "docs/example.md", text }), [
    "docs/example.md: no_such.md: no such file",
    "docs/example.md: #no-heading: no such heading",
    "docs/example.md: ../README.md#no-such-heading: no such heading",
  ]);
});

function brokenLinks({ path, text }: Document): string[] {
  return relativeLinks(text).flatMap((link) => {
    const [file, anchor] = link.split("#");
    const target = file === "" ? path : slashed(join(dirname(path), file));
    if (file !== "" && !existsSync(join(ROOT, target))) return [`${path}: ${link}: no such file`];
    if (anchor === undefined) return [];
    const targetText = target === path ? text : DOCUMENTS.find((one) => one.path === target)?.text ?? "";
    return anchors(targetText).includes(anchor) ? [] : [`${path}: ${link}: no such heading`];
  });
}

/** Documents that links lead to, and theirs. */
function reachedFrom(entry: string): Set<string> {
  const reached = new Set([entry]);
  // A set's loop comes to what is added meanwhile.
  for (const path of reached) {
    const document = DOCUMENTS.find((one) => one.path === path);
    for (const link of document ? relativeLinks(document.text) : []) {
      reached.add(slashed(join(dirname(path), link.split("#")[0])));
    }
  }
  return reached;
}
