/**
 * The public API is documented: every function, class and constant of mod.ts says what it is and has an example, which
 * the documentation tests run.
 *
 * @module
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

interface Declaration {
  readonly kind: string;
  readonly jsDoc?: { readonly doc?: string; readonly tags?: readonly { readonly kind: string }[] };
}

interface DocFile {
  readonly symbols: readonly { readonly name: string; readonly declarations: readonly Declaration[] }[];
}

const VALUES = ["function", "class", "variable"];

Deno.test("every value that mod.ts exports has a description and an example", async () => {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const { stdout, code } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", "mod.ts"],
    cwd: root,
  }).output();
  assert.equal(code, 0);
  const { nodes }: { nodes: Record<string, DocFile> } = JSON.parse(new TextDecoder().decode(stdout));
  const values = Object.values(nodes).flatMap(({ symbols }) =>
    symbols.filter(({ declarations }) => declarations.some(({ kind }) => VALUES.includes(kind)))
  );
  assert.ok(values.length > 80, `found ${values.length} values`);
  for (const { name, declarations } of values) {
    const documents = declarations.flatMap(({ jsDoc }) => jsDoc ?? []);
    assert.ok(documents.some(({ doc }) => doc), `${name} has no description`);
    const tags = documents.flatMap(({ tags = [] }) => tags);
    assert.ok(tags.some(({ kind }) => kind === "example"), `${name} has no example`);
  }
});
