/**
 * The command line: flags to settings to a call. The only owner of the console, of signals and of exit codes:
 * 0 done, 1 refused or failed, 130 stopped by Ctrl-C.
 * @module
 */
import { join } from "node:path";
import { type Gpu, GpuUnavailableError, openGpu } from "../engine/gpu.ts";
import { formatBench, runBench } from "./bench.ts";
import { formatProbe, probeAdapter } from "./bench/probe.ts";
import { TRAINING_SHAPES } from "./bench/shapes.ts";
import { cacheFolder } from "./cache_folder.ts";
import { benchFlagsSchema, type Invocation, parseCommandLine, parseFlags } from "./command_line.ts";
import { effectiveSettings, parseRunConfig, resolveLoss, type RunConfig } from "./config.ts";
import { DEMO_ENTRIES, runDemo } from "./demo.ts";
import { demoSettings } from "./demo_settings.ts";
import { InputError } from "./errors.ts";
import { helpText } from "./help.ts";
import { formatProfile } from "./profile.ts";
import { parseProfile, profileRun, profileShape } from "./profile/target.ts";
import { createProgress } from "./progress.ts";
import { prepareRun, RUN_ENTRIES, runTraining } from "./run.ts";
import {
  checkRunFolder,
  nextRunName,
  openMetrics,
  prepareRunFolder,
  writeJson,
  writeRunConfig,
} from "./run_folder.ts";
import { type PhaseResult, type RunHooks, RunStoppedError, type Session } from "./session.ts";
import { ensureAdapter, SYSTEM_DRIVER_ADVICE } from "./software_driver.ts";

/** Where runs without --output go. */
const RUNS_FOLDER = "runs";
/** Share of the host's memory that a software adapter may take. */
const HOST_MEMORY_SHARE = 0.75;
const STOPPED_EXIT_CODE = 130;

async function main(argv: readonly string[]): Promise<number> {
  const invocation = parseCommandLine(argv);
  if (invocation.help) {
    console.log(helpText(invocation.command));
    return 0;
  }
  if (invocation.command === "bench") return await bench(invocation);
  if (invocation.command === "profile") return await profile(invocation);
  return await train(invocation);
}

async function train(invocation: Invocation): Promise<number> {
  const config = parseRunConfig(invocation.raw, invocation.source);
  const isDemo = config.model === undefined && config.data === undefined;
  const entries = isDemo ? DEMO_ENTRIES : RUN_ENTRIES;
  const folder = config.output ??
    join(RUNS_FOLDER, await nextRunName(RUNS_FOLDER, isDemo ? "arithmetic" : config.loss));
  const folderOptions = { overwrite: config.overwrite, entries };
  await checkRunFolder(folder, folderOptions);
  using stop = stopOnSignal();
  const hooks: RunHooks = {
    log: (line) => console.log(line),
    progress: terminalProgress,
    signal: stop.signal,
  };
  using gpu = await openDevice(config, hooks);
  if (isDemo) await demo(gpu, { config, invocation, hooks, folder, folderOptions });
  else {
    using prepared = await prepareRun(gpu, config, hooks);
    await prepareRunFolder(folder, folderOptions);
    await writeRunConfig(folder, effectiveSettings({ ...config, output: folder }));
    using metrics = openMetrics(join(folder, "metrics.jsonl"));
    const session: Session = { ...hooks, gpu, folder, metrics };
    const referenceCache = join(cacheFolder(), "reference-logps");
    await Deno.mkdir(referenceCache, { recursive: true });
    await finish(session, await runTraining(session, prepared, { cacheFolder: referenceCache }));
  }
  return 0;
}

async function demo(
  gpu: Gpu,
  { config, invocation, hooks, folder, folderOptions }: {
    config: RunConfig;
    invocation: Invocation;
    hooks: RunHooks;
    folder: string;
    folderOptions: { overwrite: boolean; entries: string[] };
  },
): Promise<void> {
  const loss = resolveLoss(config);
  const settings = demoSettings(config, invocation.given, { lossOptions: loss?.options ?? {} });
  await prepareRunFolder(folder, folderOptions);
  await writeRunConfig(folder, { ...settings });
  using metrics = openMetrics(join(folder, "metrics.jsonl"));
  const session: Session = { ...hooks, gpu, folder, metrics };
  hooks.log(
    "The demonstration: a model learns arithmetic, then preferences between right answers and answers with one wrong " +
      `digit, by ${settings.loss} alone and with SPO around it. It writes ${folder}.`,
  );
  await finish(session, await runDemo(session, settings, loss!));
}

async function finish(session: Session, results: readonly PhaseResult[]): Promise<void> {
  await writeJson(join(session.folder, "results.json"), { adapter: session.gpu.adapter.name, results });
  session.log(`\nWrote ${session.folder}: model/, metrics.jsonl, results.json, config.json`);
}

async function bench(invocation: Invocation): Promise<number> {
  const flags = parseFlags(benchFlagsSchema, invocation);
  const { json, markdown, tiles, shape, maxSize, samples, growth, probe } = flags;
  const log = (line: string) => console.error(line);
  if (probe) {
    await ensureAdapter({ log });
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) throw new GpuUnavailableError("Cannot probe: expected a WebGPU adapter, found none");
    const report = await probeAdapter(adapter);
    console.log(json ? JSON.stringify(report, null, 2) : formatProbe(report, { markdown }));
    return 0;
  }
  using gpu = await openDevice({}, { log });
  const what = growth ? { sizes: [], steps: [], growth } : { tiles, shape: TRAINING_SHAPES[shape], maxSize };
  const report = await runBench(gpu, { ...what, samples, log });
  console.log(json ? JSON.stringify(report, null, 2) : formatBench(report, { markdown }));
  return 0;
}

async function profile(invocation: Invocation): Promise<number> {
  const flags = parseProfile(invocation);
  const log = (line: string) => console.error(line);
  using gpu = await openDevice(flags.config, { log });
  const isRun = flags.config.model !== undefined || flags.config.data !== undefined;
  const report = isRun
    ? await profileRun(gpu, flags, { log, progress: terminalProgress })
    : await profileShape(gpu, flags, log);
  console.log(flags.json ? JSON.stringify(report, null, 2) : formatProfile(report, flags));
  return 0;
}

/** Opens the adapter, saying when it is a software one. */
async function openDevice(
  config: Pick<RunConfig, "memoryBudgetGb">,
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
  return gpu;
}

function terminalProgress(label: string, total: number) {
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
function stopOnSignal(): { signal: AbortSignal } & Disposable {
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

/** What the user can mend is one line; anything else keeps its stack. */
function report(error: unknown): number {
  if (error instanceof RunStoppedError) {
    console.error(error.message);
    return STOPPED_EXIT_CODE;
  }
  const isExpected = error instanceof InputError ||
    (error instanceof Error && EXPECTED_ERRORS.has(error.name));
  console.error(isExpected ? `error: ${(error as Error).message}` : error);
  return 1;
}

/** Errors whose message says everything. */
const EXPECTED_ERRORS = new Set([
  "AdapterUnavailableError",
  "GpuUnavailableError",
  "GpuFaultError",
  "MemoryBudgetError",
  "TrainingError",
]);

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    Deno.exitCode = report(error);
  }
}
