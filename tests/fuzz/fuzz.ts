/**
 * The task `fuzz`: damaged inputs to every reader, by a seed. `--inputs` is their number in all.
 * @module
 */
import { parseArgs } from "node:util";
import { fuzz } from "./harness.ts";
import { fuzzTargets } from "./targets.ts";

const { values } = parseArgs({
  options: { inputs: { type: "string", default: "20800" }, seed: { type: "string", default: "0" } },
});
const folder = await Deno.makeTempDir({ prefix: "keel_fuzz_" });
let found = 0;
try {
  const targets = await fuzzTargets(folder);
  const inputs = Math.ceil(Number(values.inputs) / targets.length);
  for (const target of targets) {
    const figures = await fuzz(target, { inputs, seed: Number(values.seed) });
    found += figures.findings.length;
    const { name, accepted, findings, seconds } = figures;
    console.log(
      `${name}: ${inputs} inputs, ${accepted} accepted, ${findings.length} findings, ${seconds.toFixed(1)} s`,
    );
    for (const finding of findings.slice(0, 3)) console.error(finding.slice(0, 1500));
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
Deno.exitCode = found > 0 ? 1 : 0;
