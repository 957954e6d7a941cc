/**
 * What commands share at a terminal: the device, Ctrl-C.
 * @module
 */
import { type Gpu, openGpu } from "../engine/gpu.ts";
import type { RunConfig } from "./config.ts";
import { terminalProgress } from "./command_console.ts";
import { type RunHooks, RunStoppedError, withProgress } from "./session.ts";
import { ensureAdapter, SYSTEM_DRIVER_ADVICE } from "./software_driver.ts";
import { tuneFolder, tuneFromCache } from "./tune_cache.ts";

/** Share of the host's memory that a software adapter may take. */
const HOST_MEMORY_SHARE = 0.75;
/** Exit codes of a command that a signal ended: 128 and its number, as shells have it. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
/** Of a command that Ctrl-C ended. */
export const STOPPED_EXIT_CODE = EXIT_CODES.SIGINT;

/** Signals that ask a command to stop. Windows has no SIGTERM. */
const STOP_SIGNALS = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;

/** The first one that came. */
let received: keyof typeof EXIT_CODES | undefined;

/** Of a command that was stopped: 130 after Ctrl-C, 143 after SIGTERM. */
export function stoppedExitCode(): number {
  return EXIT_CODES[received ?? "SIGINT"];
}

/** Opens the adapter, saying when it is a software one. What runs on it ends at its next readback when the signal comes. */
export async function openDevice(
  config: Pick<RunConfig, "memoryBudgetGb" | "tune">,
  hooks: Pick<RunHooks, "log" | "signal"> & Partial<RunHooks>,
): Promise<Gpu> {
  const source = await ensureAdapter({ log: hooks.log });
  const gpu = await openGpu({
    memoryBudgetBytes: ({ isCpu }) => {
      if (config.memoryBudgetGb !== undefined) return config.memoryBudgetGb * 2 ** 30;
      return isCpu ? Deno.systemMemoryInfo().total * HOST_MEMORY_SHARE : Infinity;
    },
  });
  gpu.signal = hooks.signal ?? null;
  const advice = source.kind === "software" ? ` (software; ${SYSTEM_DRIVER_ADVICE})` : "";
  hooks.log(`Adapter: ${gpu.adapter.name}${advice}`);
  if (config.tune === "auto") {
    await withProgress({ progress: terminalProgress, ...hooks }, "tuning", async (onProgress) => {
      await tuneFromCache(gpu, { folder: tuneFolder(), log: hooks.log, onProgress });
    });
  }
  return gpu;
}

/** First Ctrl-C or SIGTERM: stop after the current step or batch. Second: at once, with the code of the first. */
export function stopOnSignal(): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const listeners = STOP_SIGNALS.map((name) => {
    const listener = () => {
      if (controller.signal.aborted) Deno.exit(stoppedExitCode());
      received ??= name;
      controller.abort(new RunStoppedError(`Stopped by ${name}`));
    };
    Deno.addSignalListener(name, listener);
    return { name, listener };
  });
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const { name, listener } of listeners) Deno.removeSignalListener(name, listener);
    },
  };
}
