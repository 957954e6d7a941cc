/**
 * What commands share at a terminal: the device, progress bars, Ctrl-C.
 * @module
 */
import { type Gpu, openGpu } from "../engine/gpu.ts";
import type { RunConfig } from "./config.ts";
import { createProgress, type Progress } from "./progress.ts";
import type { RunHooks } from "./session.ts";
import { ensureAdapter, SYSTEM_DRIVER_ADVICE } from "./software_driver.ts";
import { tuneFolder, tuneFromCache } from "./tune_cache.ts";

/** Share of the host's memory that a software adapter may take. */
const HOST_MEMORY_SHARE = 0.75;
/** Of a command that Ctrl-C ended. */
export const STOPPED_EXIT_CODE = 130;

/** Opens the adapter, saying when it is a software one. */
export async function openDevice(
  config: Pick<RunConfig, "memoryBudgetGb" | "tune">,
  hooks: Pick<RunHooks, "log">,
): Promise<Gpu> {
  const source = await ensureAdapter({ log: hooks.log });
  const gpu = await openGpu({
    memoryBudgetBytes: ({ isCpu }) => {
      if (config.memoryBudgetGb !== undefined) return config.memoryBudgetGb * 2 ** 30;
      return isCpu ? Deno.systemMemoryInfo().total * HOST_MEMORY_SHARE : Infinity;
    },
  });
  const advice = source.kind === "software" ? ` (software; ${SYSTEM_DRIVER_ADVICE})` : "";
  hooks.log(`Adapter: ${gpu.adapter.name}${advice}`);
  if (config.tune === "auto") await tuneFromCache(gpu, { folder: tuneFolder(), log: hooks.log });
  return gpu;
}

/** A bar on standard error. */
export function terminalProgress(label: string, total: number): Progress {
  const encoder = new TextEncoder();
  return createProgress({
    label,
    total,
    write: (text) => Deno.stderr.writeSync(encoder.encode(text)),
    isTerminal: Deno.stderr.isTerminal(),
    columns: () => Deno.consoleSize().columns,
  });
}

/** First Ctrl-C: stop after the current step. Second: at once. */
export function stopOnSignal(): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const onInterrupt = () => {
    if (controller.signal.aborted) Deno.exit(STOPPED_EXIT_CODE);
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", onInterrupt);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => Deno.removeSignalListener("SIGINT", onInterrupt),
  };
}
