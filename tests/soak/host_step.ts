/**
 * Measures what a training step costs on the host: the GPU's work is encoded, and then dropped in place of run.
 * `deno run -R -W -E -S --allow-ffi --allow-run tests/soak/host_step.ts`
 *
 * @module
 */
import { ensureAdapter } from "../../train/software_driver.ts";
import { openGpu } from "../../engine/gpu.ts";
import { sftObjective } from "../../train/objective.ts";
import { train } from "../../train/trainer.ts";
import { randomCompletions, tinyModel } from "../tiny_model.ts";

const STEPS_PER_SAMPLE = 50;
const SAMPLES = 9;

await ensureAdapter();
using gpu = await openGpu();
using model = tinyModel(gpu, { config: { num_hidden_layers: 4 } });
using objective = sftObjective(model, randomCompletions(64, 1));
const { queue } = gpu.device;
const submit = queue.submit.bind(queue);
// Buffer writes go on with a submit, and so do the readback's copies: metrics that were never computed are zero.
Object.defineProperty(queue, "submit", { value: () => submit([]) });
const marks: { ms: number; dispatches: number }[] = [];
await train(objective, {
  optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  schedule: {
    kind: "constant",
    learningRate: 1e-4,
    warmupSteps: 0,
    maxSteps: STEPS_PER_SAMPLE * (SAMPLES + 1),
  },
  ...{ batchSize: 8, seed: 1, logEvery: STEPS_PER_SAMPLE },
  onLog: () => void marks.push({ ms: performance.now(), dispatches: gpu.stats().dispatches }),
});
const times = marks.slice(1).map(({ ms }, index) => (ms - marks[index].ms) / STEPS_PER_SAMPLE).sort((a, b) =>
  a - b
);
const dispatches = (marks.at(-1)!.dispatches - marks[0].dispatches) / (SAMPLES * STEPS_PER_SAMPLE);
console.log(
  `${times[(SAMPLES - 1) / 2].toFixed(2)} ms a step on the host (${times[0].toFixed(2)} to ${
    times.at(-1)!.toFixed(2)
  }), ${dispatches} dispatches`,
);
