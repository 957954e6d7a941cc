import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT } from "../sources.ts";
import { DIGIT_PAIRS, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { codeBlocks, DOCUMENTS } from "./markdown.ts";

interface Block {
  align(folder: string, data: string, output: string): Promise<void>;
}

// `deno test --doc` runs every block; this one only defines a function, which is called here.
Deno.test("the function of docs/embedding.md trains a model folder on a file, and saves it", async () => {
  const { text } = DOCUMENTS.find(({ path }) => path === "docs/embedding.md")!;
  const block = codeBlocks(text).find(({ lines }) => lines.some((line) => line.includes("function align(")))!;
  const folder = temporaryFolder();
  const [model, output] = [join(folder, "model"), join(folder, "aligned")];
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  const file = join(folder, "align.ts");
  const source = block.lines.join("\n").replaceAll("../mod.ts", pathToFileURL(join(ROOT, "mod.ts")).href);
  await Deno.writeTextFile(file, source);
  const { align }: Block = await import(pathToFileURL(file).href);
  await align(model, data, output);
  assert.ok(existsSync(join(output, "model.safetensors")));
  assert.notDeepEqual(
    await Deno.readFile(join(output, "model.safetensors")),
    await Deno.readFile(join(model, "model.safetensors")),
  );
});
