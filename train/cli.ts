/**
 * The command line: flags to settings to a call. The only owner of the console, of signals and of exit codes:
 * 0 done, 1 refused or failed, 130 stopped by Ctrl-C.
 * @module
 */
import { join } from "node:path";
import { type Gpu, GpuUnavailableError, openGpu } from "../engine/gpu.ts";
import { formatBench, runBench } from "./bench.ts";
import { formatGrowth, planGrowth } from "./bench/memory.ts";
import { formatProbe, probeAdapter } from "./bench/probe.ts";
import { TRAINING_SHAPES } from "./bench/shapes.ts";
import { cacheFolder } from "./cache_folder.ts";
import { benchFlagsSchema, type Invocation, parseCommandLine, parseFlags } from "./command_line.ts";
import { effectiveSettings, parseRunConfig, resolveLoss, type RunConfig } from "./config.ts";
import { DEMO_ENTRIES, type DemoData, demoData, runDemo } from "./demo.ts";
import { type DemoSettings, demoSettings } from "./demo_settings.ts";
import { InputError } from "./errors.ts";
import { helpText } from "./help.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import { formatProfile } from "./profile.ts";
import { parseProfile, profileRun, profileShape } from "./profile/target.ts";
import { createProgress } from "./progress.ts";
import { formatPlan, type MemoryPlan, planningOptions, planRun } from "./plan.ts";
import { findRemedies, planTrainingRun, refuseOverBudget, type Remedy } from "./plan_fit.ts";
import { loadRun, readRunData, RUN_ENTRIES, type RunData, runTraining } from "./run.ts";
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
import { tuneFolder, tuneFromCache } from "./tune_cache.ts";

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
  const job = isDemo ? demoJob(config, invocation) : trainingJob(await readRunData(config, hooks));
  const plan = await job.plan(gpu);
  if (config.dryRun) hooks.log(formatPlan(plan));
  await refuseOverBudget(plan, () => job.remedies(gpu));
  if (config.dryRun) return 0;
  using prepared = await job.prepare(gpu);
  await prepareRunFolder(folder, folderOptions);
  await writeRunConfig(folder, job.settings(folder));
  using metrics = openMetrics(join(folder, "metrics.jsonl"));
  const session: Session = { ...hooks, gpu, folder, metrics };
  const results = await prepared.run(session);
  await writeJson(join(folder, "results.json"), { adapter: gpu.adapter.name, results });
  hooks.log(`\nWrote ${folder}: model/, metrics.jsonl, results.json, config.json`);
  return 0;
}

/** A run, of whatever kind. */
interface Job {
  /** The content of its config.json. */
  readonly settings: (folder: string) => Record<string, unknown>;
  readonly plan: (gpu: Gpu) => Promise<MemoryPlan>;
  /** What would make it fit the budget. */
  readonly remedies: (gpu: Gpu) => Promise<Remedy[]>;
  /** Loads what it needs; nothing is written yet. */
  readonly prepare: (gpu: Gpu) => Promise<PreparedJob>;
}

interface PreparedJob extends Disposable {
  readonly run: (session: Session) => Promise<PhaseResult[]>;
}

function trainingJob(data: RunData): Job {
  const referenceCache = join(cacheFolder(), "reference-logps");
  const plan = (gpu: Gpu, of: RunData) => planTrainingRun(planningOptions(gpu), of, referenceCache);
  return {
    settings: (folder) => effectiveSettings({ ...data.config, output: folder }),
    plan: (gpu) => plan(gpu, data),
    remedies: (gpu) => findRemedies(data, (changed) => plan(gpu, changed)),
    async prepare(gpu) {
      const prepared = await loadRun(gpu, data);
      return {
        async run(session) {
          await Deno.mkdir(referenceCache, { recursive: true });
          return await runTraining(session, prepared, { cacheFolder: referenceCache });
        },
        [Symbol.dispose]: () => prepared[Symbol.dispose](),
      };
    },
  };
}

function demoJob(config: RunConfig, { given }: Invocation): Job {
  const resolved = resolveLoss(config);
  const settings = demoSettings(config, given, { lossOptions: resolved?.options ?? {} });
  const [loss, data] = [resolved!, demoData(settings)];
  return {
    settings: () => ({ ...settings }),
    plan: (gpu) => planRun(planningOptions(gpu), (session) => runDemo(session, settings, { loss, data })),
    remedies: () => Promise.resolve([]),
    prepare: () =>
      Promise.resolve({
        run: (session) => demonstrate(session, settings, { loss, data }),
        [Symbol.dispose]() {},
      }),
  };
}

async function demonstrate(
  session: Session,
  settings: DemoSettings,
  options: { loss: ResolvedPairLoss; data: DemoData },
): Promise<PhaseResult[]> {
  session.log(
    "The demonstration: a model learns arithmetic, then preferences between right answers and answers with one wrong " +
      `digit, by ${settings.loss} alone and with SPO around it. It writes ${session.folder}.`,
  );
  return await runDemo(session, settings, options);
}

async function bench(invocation: Invocation): Promise<number> {
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
