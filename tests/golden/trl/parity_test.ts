import assert from "node:assert/strict";
import { gpuTest } from "../../gpu.ts";
import { PARITY_CASES } from "./cases.ts";
import { deviationsOf, GOLDEN, type ParityMode, runCase } from "./parity.ts";

/** Relative, in f32; the issue's. */
const LIMIT = 1e-4;
/** Every run must be compared in these, unless TRL means something else by them. */
const REQUIRED = [
  "loss",
  "grad_norm",
  "rewards/chosen",
  "rewards/rejected",
  "logps/chosen",
  "logps/rejected",
];
/** The same where TRL logs them; its CPO and ORPO trainers do not. */
const STATISTICS = ["entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"];
const MODES: readonly ParityMode[] = ["full", "lora"];

Deno.test("every golden run of TRL is a case of Keel", () => {
  assert.deepEqual(Object.keys(PARITY_CASES).sort(), Object.keys(GOLDEN).sort());
});

for (const [name, { differs = [] }] of Object.entries(PARITY_CASES)) {
  for (const mode of MODES.filter((mode) => GOLDEN[name][mode])) {
    gpuTest(`ten steps of ${name} (${mode}) log what TRL logs`, async (gpu) => {
      const deviations = deviationsOf(await runCase(gpu, { name, mode }), { name, mode });
      const compared = deviations.map(({ name }) => name);
      const required = [...REQUIRED, ...STATISTICS.filter((key) => key in GOLDEN[name][mode]!)];
      const missing = required.filter((key) => !compared.includes(key) && !differs.includes(key));
      assert.deepEqual(missing, [], "quantities that were not compared");
      const far = deviations.filter(({ deviation }) => deviation > LIMIT);
      assert.deepEqual(far, [], "quantities that differ from TRL's");
    });
  }
}
