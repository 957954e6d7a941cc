/**
 * A short slice of `deno task fuzz`.
 * @module
 */
import { temporaryFolder } from "../tiny_model.ts";
import { assertClean, fuzz } from "./harness.ts";
import { fuzzTargets } from "./targets.ts";

for (const target of await fuzzTargets(temporaryFolder())) {
  Deno.test(`60 damaged inputs to the reader of ${target.name}`, async () => {
    assertClean(await fuzz(target, { inputs: 60, seed: 7 }));
  });
}
