import assert from "node:assert/strict";
import { commandOf, ROOT } from "./run_example.ts";

const EXAMPLES = ["train.ts", "custom_loss.ts", "custom_op.ts", "score_service.ts", "lora.ts"];

Deno.test("examples/README.md has every example, with the command that stands in it", async () => {
  const files = Array.from(Deno.readDirSync(`${ROOT}/examples`), ({ name }) => name);
  assert.deepEqual(files.toSorted(), [...EXAMPLES, "README.md", "letters.ts"].toSorted());
  const text = await Deno.readTextFile(`${ROOT}/examples/README.md`);
  const commands = [...text.matchAll(/^ {4}deno (.*)$/gm)].map(([, command]) => command);
  assert.deepEqual(commands, EXAMPLES.map((name) => commandOf(name).join(" ")));
});

Deno.test("examples import Keel through mod.ts alone", async () => {
  for (const name of [...EXAMPLES, "letters.ts"]) {
    const text = await Deno.readTextFile(`${ROOT}/examples/${name}`);
    const specifiers = [...text.matchAll(/\bfrom "([^"]+)"/g)].map(([, specifier]) => specifier);
    assert.ok(specifiers.includes("../mod.ts"), name);
    const others = specifiers.filter((one) => !/^(node:.*|zod|\.\.\/mod\.ts|\.\/letters\.ts)$/.test(one));
    assert.deepEqual(others, [], name);
  }
});
