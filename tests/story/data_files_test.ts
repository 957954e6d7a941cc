/**
 * Data as it comes: several files, packed ones, with columns, and steps of a bounded size.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { temporaryFolder } from "../tiny_model.ts";
import { DIGIT_PAIRS, runTask, succeed, TINY_CONFIGS, writeCheckpoint, writeLines } from "./user.ts";

/** Every pair with a margin. */
const WITH_MARGINS = DIGIT_PAIRS.map((pair, index) => ({ ...pair, margin: index / 10 }));

Deno.test("train takes several files, packed ones and margins, in micro-batches of a bounded size", async () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model, TINY_CONFIGS.llama);
  const plain = await writeLines(join(folder, "plain.jsonl"), DIGIT_PAIRS);
  const margins = await writeLines(join(folder, "margins.jsonl"), WITH_MARGINS);
  const packed = join(folder, "packed.jsonl.gz");
  await Deno.writeFile(packed, gzipSync(await Deno.readFile(margins)));
  const flags = ["--model", model, "--max-steps", "2", "--batch-size", "4", "--log-every", "1"];
  const output = join(folder, "run");
  const budget = ["--batch-tokens", "40", "--truncation", "keep_end"];
  const out = await succeed("train", [
    ...flags,
    ...budget,
    "--data",
    `${margins},${packed}`,
    "--output",
    output,
  ]);
  assert.match(out, new RegExp(`packed\\.jsonl\\.gz: ${DIGIT_PAIRS.length} pairs`));
  const config = JSON.parse(await Deno.readTextFile(join(output, "config.json")));
  assert.deepEqual([config.batchTokens, config.truncation], [40, "keep_end"]);

  const refused: [string[], RegExp][] = [
    [
      ["--data", `${margins},${plain}`],
      /^error: Cannot use .*plain\.jsonl: expected the columns of .* \(margin\), found none$/m,
    ],
    [
      ["--data", `${plain},${plain}`],
      /^error: Cannot use .*: expected each file once, found .*plain\.jsonl twice$/m,
    ],
    [
      ["--data", plain, "--margin-column", "gap"],
      /^error: Cannot read .*plain\.jsonl:1: expected a number as "gap", found none$/m,
    ],
    [
      ["--data", margins, "--loss", "orpo"],
      /^error: Cannot train with orpo: expected a loss that takes margins/m,
    ],
    [["--data", plain, "--batch-tokens", "3"], /^error: .*3/m],
  ];
  for (const [args, message] of refused) {
    const { code, error } = await runTask("train", [...flags, ...args, "--output", join(folder, "refused")]);
    assert.equal(code, 1, args.join(" "));
    assert.match(error, message);
  }
});
