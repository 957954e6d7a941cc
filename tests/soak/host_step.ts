/**
 * Measures what a training step costs on the host: the GPU's work is encoded, and then dropped in place of run.
 * `deno run -R -W -E -S --allow-ffi --allow-run tests/soak/host_step.ts`
 *
 * @module
 */
import { ensureAdapter } from "../../train/software_driver.ts";
import { Gpu, openGpu } from "../../engine/gpu.ts";
import { sftObjective } from "../../train/objective.ts";
import { train } from "../../train/trainer.ts";
import { randomCompletions, tinyModel } from "../tiny_model.ts";

const STEPS_PER_SAMPLE = 50;
const SAMPLES = 5;

/** Milliseconds a step, ascending, and its dispatches. */
async function measure(gpu: Gpu): Promise<{ times: number[]; dispatches: number }> {
  using model = tinyModel(gpu, { config: { num_hidden_layers: 4 } });
  using objective = sftObjective(model, randomCompletions(64, 1));
  const marks: { ms: number; dispatches: number }[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: {
      ...{ kind: "constant", learningRate: 1e-4, warmupSteps: 0 },
      maxSteps: STEPS_PER_SAMPLE * (SAMPLES + 1),
    },
    ...{ batchSize: 8, seed: 1, logEvery: STEPS_PER_SAMPLE },
    onLog: () => void marks.push({ ms: performance.now(), dispatches: gpu.stats().dispatches }),
  });
  const times = marks.slice(1).map(({ ms }, index) => (ms - marks[index].ms) / STEPS_PER_SAMPLE);
  const dispatches = (marks.at(-1)!.dispatches - marks[0].dispatches) / (SAMPLES * STEPS_PER_SAMPLE);
  return { times: times.sort((a, b) => a - b), dispatches };
}

await ensureAdapter();
using own = await openGpu();
const { queue } = own.device;
const submit = queue.submit.bind(queue);
// Buffer writes go on with a submit, and so do the readback's copies: metrics that were never computed are zero.
Object.defineProperty(queue, "submit", { value: () => submit([]) });
for (const isCpu of [true, false]) {
  const { times, dispatches } = await measure(new Gpu(own.device, { ...own.adapter, isCpu }));
  const [least, median, most] = [times[0], times[(SAMPLES - 1) / 2], times.at(-1)!].map((ms) =>
    ms.toFixed(2)
  );
  console.log(
    `laid out for a ${
      isCpu ? "CPU" : "GPU"
    }: ${median} ms a step on the host (${least} to ${most}), ${dispatches} dispatches`,
  );
}
