import assert from "node:assert/strict";
import { ROOT, runExample } from "./run_example.ts";

Deno.test("train.ts: from a guess to the whole of the held-out pairs, with a falling loss", async () => {
  const text = await runExample("train.ts");
  const [before, after] = [...text.matchAll(/^held-out accuracy \w+: (.*)$/gm)].map(([, value]) =>
    Number(value)
  );
  assert.ok(before < 0.7, text);
  assert.equal(after, 1, text);
  const losses = [...text.matchAll(/ loss (\S+) /g)].map(([, loss]) => Number(loss));
  assert.equal(losses.length, 6, text);
  for (let i = 1; i < losses.length; i++) assert.ok(losses[i] < losses[i - 1], text);
});

Deno.test("train.ts has thirty lines", async () => {
  const text = await Deno.readTextFile(`${ROOT}/examples/train.ts`);
  const [, code] = text.split("\n */\n");
  const lines = code.split("\n").filter((line) => line.trim() !== "");
  assert.ok(lines.length > 10 && lines.length <= 30, `${lines.length} lines`);
});
