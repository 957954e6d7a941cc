/**
 * `bench`: measures, and prints tables.
 * @module
 */
import { GpuUnavailableError } from "../../engine/gpu.ts";
import { formatBench, runBench } from "../bench.ts";
import { formatGrowth, planGrowth } from "../bench/memory.ts";
import { formatProbe, probeAdapter } from "../bench/probe.ts";
import { TRAINING_SHAPES } from "../bench/shapes.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ensureAdapter } from "../software_driver.ts";
import { openDevice } from "../terminal.ts";
import { benchFlagsSchema } from "./bench.ts";

/**
 * @param invocation of `bench`
 * @returns the exit code
 */
export async function runBenchCommand(invocation: Invocation): Promise<number> {
  const flags = parseFlags(benchFlagsSchema, invocation);
  const { json, markdown, tiles, tune, shape, maxSize, samples, growth, memory, probe } = flags;
  const log = (line: string) => console.error(line);
  if (probe) {
    await ensureAdapter({ log });
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw new GpuUnavailableError("Cannot probe: expected a WebGPU adapter, found none");
    const report = await probeAdapter(adapter);
    console.log(json ? JSON.stringify(report, null, 2) : formatProbe(report, { markdown }));
    return 0;
  }
  if (memory) {
    const plans = await planGrowth();
    console.log(json ? JSON.stringify(plans, null, 2) : formatGrowth(plans, { markdown }));
    return 0;
  }
  using gpu = await openDevice({ tune }, { log });
  const what = growth ? { sizes: [], steps: [], growth } : { tiles, shape: TRAINING_SHAPES[shape], maxSize };
  const report = await runBench(gpu, { ...what, samples, log });
  console.log(json ? JSON.stringify(report, null, 2) : formatBench(report, { markdown }));
  return 0;
}
