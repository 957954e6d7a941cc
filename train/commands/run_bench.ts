/**
 * `bench`: measures, and prints tables.
 * @module
 */
import type { z } from "zod";
import { type Gpu, GpuUnavailableError } from "../../engine/gpu.ts";
import { formatBench, planBench, runBench } from "../bench.ts";
import { formatGrowth, planGrowth } from "../bench/memory.ts";
import { formatProbe, probeAdapter } from "../bench/probe.ts";
import { readConditions } from "../bench/conditions.ts";
import { benchDecoding, decodingModel, planBenchDecoding } from "../bench/decoding.ts";
import { formatDecoding } from "../bench/format.ts";
import { describeModel } from "../bench/shapes.ts";
import { TRAINING_SHAPES } from "../bench/training_shapes.ts";
import { ConfigError } from "../errors.ts";
import { type CommandConsole, openConsole, refuseTwoForms } from "../command_console.ts";
import { checkModelOrAdapter, loadModelOrAdapter, planModelOrAdapter } from "../models/load_model.ts";
import { planningOptions, planRun, requireFit } from "../plan.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ensureAdapter } from "../software_driver.ts";
import { openDevice, stopOnSignal } from "../terminal.ts";
import { benchFlagsSchema } from "./bench.ts";

/**
 * @param invocation of `bench`
 * @returns the exit code
 */
export async function runBenchCommand(invocation: Invocation): Promise<number> {
  const flags = parseFlags(benchFlagsSchema, invocation);
  const { markdown, tiles, shape, maxSize, samples, growth, memory, probe } = flags;
  const { log, result } = openConsole(invocation);
  refuseTwoForms(flags, invocation);
  if (probe) {
    await ensureAdapter({ log });
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw new GpuUnavailableError("Cannot probe: expected a WebGPU adapter, found none");
    const report = await probeAdapter(adapter);
    result(report, formatProbe(report, { markdown }));
    return 0;
  }
  if (memory) {
    const plans = await planGrowth();
    result(plans, formatGrowth(plans, { markdown }));
    return 0;
  }
  if (flags.model !== undefined && !flags.decode) {
    throw new ConfigError("Cannot use --model: expected --decode beside it, found none");
  }
  using stop = stopOnSignal();
  using gpu = await openDevice(flags, { log, signal: stop.signal });
  if (flags.decode) return await runDecoding(gpu, flags, { log, result });
  const what = growth ? { sizes: [], steps: [], growth } : { tiles, shape: TRAINING_SHAPES[shape], maxSize };
  requireFit(await planBench(planningOptions(gpu), what), {
    action: "measure",
    advice: growth ? undefined : "a smaller --shape and --max-size take less",
  });
  const report = await runBench(gpu, { ...what, samples, log });
  result(report, formatBench(report, { markdown }));
  return 0;
}

/** Sequences decoded together that are measured. */
const BATCHES = [1, 4, 16];

async function runDecoding(
  gpu: Gpu,
  { model: folder, shape, samples, markdown }: z.output<typeof benchFlagsSchema>,
  { log, result }: Pick<CommandConsole, "log" | "result">,
): Promise<number> {
  const conditions = readConditions(gpu);
  const checked = folder === undefined ? undefined : await checkModelOrAdapter(folder);
  const plan = await planRun(planningOptions(gpu), async ({ gpu }) => {
    using model = checked
      ? await planModelOrAdapter(gpu, checked, { trainable: false })
      : decodingModel(gpu, TRAINING_SHAPES[shape]);
    await planBenchDecoding(model, BATCHES);
  });
  requireFit(plan, { action: "measure", advice: "a smaller --shape or --model takes less" });
  using model = checked === undefined
    ? decodingModel(gpu, TRAINING_SHAPES[shape])
    : (await loadModelOrAdapter(gpu, checked.folders, { trainable: false })).model;
  const results = await benchDecoding(model, { batches: BATCHES, samples, log });
  const title = describeModel(model);
  result({ conditions, title, results }, formatDecoding(results, { title, conditions, markdown }));
  return 0;
}
