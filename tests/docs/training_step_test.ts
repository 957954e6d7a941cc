import assert from "node:assert/strict";
import { PICTURE, trainingStepSvg } from "./training_step.ts";

Deno.test("docs/training_step.svg is what its script draws", async () => {
  assert.equal(
    await Deno.readTextFile(PICTURE),
    trainingStepSvg(),
    "deno run -R -W tests/docs/training_step.ts writes it",
  );
});

Deno.test("the picture has the parts of a step", () => {
  const svg = trainingStepSvg();
  for (
    const part of [
      "tape",
      "arena",
      "graph",
      "submit",
      "metrics ring",
      "readback",
      "upper level",
      "lower level",
    ]
  ) {
    assert.ok(svg.includes(`>${part}`), part);
  }
});
