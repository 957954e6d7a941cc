import assert from "node:assert/strict";
import { checkReluGate, reluGate } from "../../examples/custom_op.ts";
import { fromHost, release, ShapeError } from "../../mod.ts";
import { gpuTest } from "../gpu.ts";

gpuTest("custom_op.ts: values and both gradients are those of f64", async (gpu) => {
  const { output, gradients } = await checkReluGate(gpu);
  assert.deepEqual(Object.keys(gradients), ["gate", "up"]);
  for (const error of [output, ...Object.values(gradients)]) assert.ok(error > 0 && error < 1e-6, `${error}`);
});

gpuTest("custom_op.ts refuses another shape", (gpu) => {
  const [gate, up] = [2, 3].map((length) => fromHost(gpu, new Float32Array(length), { shape: [length] }));
  assert.throws(() => reluGate(gate, up), ShapeError);
  [gate, up].forEach(release);
});
