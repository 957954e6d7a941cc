import assert from "node:assert/strict";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const MODULE = fileURLToPath(new URL("../mod.ts", import.meta.url));

/** What `deno doc --json` says of one exported value; only the part that is looked at. */
interface Declaration {
  kind: string;
  location: { filename: string; line: number };
  jsDoc?: { doc?: string; tags?: { kind: string; doc?: string }[] };
}

/** Kinds that exist at run time; types are checked by `deno doc --lint` alone. */
const VALUE_KINDS = ["function", "class", "variable", "enum"];

Deno.test("every value that mod.ts exports is documented, with an example that runs", async () => {
  const values = (await exportedSymbols()).flatMap(({ name, declarations }) =>
    declarations.filter(({ kind }) => VALUE_KINDS.includes(kind)).map((declaration) => ({
      name,
      declaration,
    }))
  );
  const runtime = Object.keys(await import("../mod.ts"));
  assert.deepEqual([...new Set(values.map(({ name }) => name))].toSorted(), runtime.toSorted());
  assert.deepEqual(values.flatMap(({ name, declaration }) => findGaps(name, declaration)), []);
});

Deno.test("findGaps finds a missing docstring, a missing example and one that is not run", () => {
  const location = { filename: "file:///a.ts", line: 1 };
  const gaps = (jsDoc?: Declaration["jsDoc"]) => findGaps("x", { kind: "variable", location, jsDoc }).length;
  const example = (fence: string) => ({ kind: "example", doc: `${fence}\nx();\n\`\`\`` });
  assert.equal(gaps(), 2);
  assert.equal(gaps({ doc: "What it is." }), 1);
  assert.equal(gaps({ doc: "What it is.", tags: [example("```ts no-run")] }), 1);
  assert.equal(gaps({ doc: " ", tags: [example("```ts")] }), 1);
  assert.equal(gaps({ doc: "What it is.", tags: [example("```ts")] }), 0);
});

function findGaps(name: string, { location, jsDoc }: Declaration): string[] {
  const place = `${name} (${location.filename}:${location.line})`;
  const hasExample = jsDoc?.tags?.some(({ kind, doc }) => kind === "example" && /^```ts$/m.test(doc ?? ""));
  return [
    ...(jsDoc?.doc?.trim() ? [] : [`${place} has no docstring`]),
    ...(hasExample ? [] : [`${place} has no example that runs`]),
  ];
}

async function exportedSymbols(): Promise<{ name: string; declarations: Declaration[] }[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", MODULE],
    cwd: dirname(MODULE),
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const { nodes } = JSON.parse(new TextDecoder().decode(stdout));
  return Object.values<{ symbols: { name: string; declarations: Declaration[] }[] }>(nodes)
    .flatMap(({ symbols }) => symbols);
}
