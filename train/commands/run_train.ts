/**
 * `train`: settings to a planned, prepared and finished run.
 * @module
 */
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { cacheFolder } from "../cache_folder.ts";
import { compareIdentity } from "../checkpoints/find.ts";
import { runIdentity } from "../checkpoints/identity.ts";
import { type RunCheckpointOptions, runCheckpoints } from "../checkpoints/run_checkpoints.ts";
import { type CommandConsole, openConsole } from "../command_console.ts";
import type { Invocation } from "../command_line.ts";
import {
  effectiveSettings,
  parseRunConfig,
  resolveLoss,
  resolveUnpaired,
  type RunConfig,
} from "../config.ts";
import { lockFolder } from "../folder_lock.ts";
import type { Dashboard } from "../dashboard/dashboard.ts";
import { withDashboard } from "../dashboard/with_dashboard.ts";
import { formatDataReport } from "../data/inspect_report.ts";
import { DEMO_ENTRIES, type DemoData, demoData, runDemo } from "../demo.ts";
import { type DemoSettings, demoSettings } from "../demo_settings.ts";
import type { ResolvedPairLoss } from "../losses/pair_loss.ts";
import { ConfigError } from "../errors.ts";
import { inspectRun } from "../inspect_run.ts";
import { openRunLogs } from "../logs/run_logs.ts";
import { combineSinks } from "../metrics_sink.ts";
import { demoCard, runCard, type RunCardOptions } from "../model_card/run_card.ts";
import { formatPlan, type MemoryPlan, planningOptions, planRun } from "../plan.ts";
import { findRemedies, planTrainingRun, refuseOverBudget, type Remedy } from "../plan_fit.ts";
import { loadRun, type PreparedRun, RUN_ENTRIES, runTraining } from "../run.ts";
import { readRunData, type RunData } from "../run_data.ts";
import {
  checkRunFolder,
  chooseRunFolder,
  prepareRunFolder,
  type RunFolderOptions,
  writeJson,
  writeRunConfig,
} from "../run_folder.ts";
import { SAMPLES_FILE, writeSamples } from "../samples.ts";
import {
  inMebibytes,
  type PhaseResult,
  type RunHooks,
  RunStoppedError,
  saveTrained,
  type Session,
  withProgress,
} from "../session.ts";
import { findResumed, prepareResumedFolder, resumeCommand } from "./resume.ts";
import { resumedInvocation } from "./resumed_invocation.ts";
import { openDevice, stopOnSignal } from "../terminal.ts";

/**
 * @param given of `train`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 * @throws {RunStoppedError} on Ctrl-C
 */
export async function runTrain(given: Invocation): Promise<number> {
  const invocation = given.raw.resume === true ? resumedInvocation(given) : given;
  const config = parseRunConfig(invocation.raw, invocation.source);
  const isDemo = config.model === undefined && config.data === undefined;
  if (config.inspect) return await describeData(config, invocation);
  const entries = isDemo ? DEMO_ENTRIES : RUN_ENTRIES;
  const folder = await chooseRunFolder(config);
  const folderOptions = { overwrite: config.overwrite, entries };
  using _lock = config.resume ? await lockFolder(folder) : undefined;
  if (!config.resume) await checkRunFolder(folder, folderOptions);
  using stop = stopOnSignal();
  const { log, progress, result } = openConsole(invocation, { logs: "stdout" });
  const checked = { config, invocation, isDemo, folder, folderOptions, result };
  return await withDashboard(
    config,
    { log, progress, signal: stop.signal },
    (hooks, dashboard) => execute({ ...checked, hooks, dashboard }),
  );
}

/** A run whose settings are sound and whose folder could be written. */
interface CheckedRun extends Pick<CommandConsole, "result"> {
  readonly config: RunConfig;
  readonly invocation: Invocation;
  readonly isDemo: boolean;
  readonly folder: string;
  readonly folderOptions: RunFolderOptions;
  readonly hooks: RunHooks;
  readonly dashboard?: Dashboard;
}

async function execute({ config, invocation, isDemo, hooks, ...checked }: CheckedRun): Promise<number> {
  const { folder, folderOptions, dashboard, result } = checked;
  using gpu = await openDevice(config, hooks);
  const job = isDemo ? demoJob(config, invocation) : trainingJob(await readRunData(config, hooks), hooks);
  const found = config.resume ? await findResumed(folder, hooks.log) : undefined;
  const identity = config.dryRun ? {} : await job.identity(gpu);
  if (found) compareIdentity(found, identity);
  const plan = await job.plan(gpu);
  if (config.dryRun) result(plan, formatPlan(plan));
  await refuseOverBudget(plan, () => job.remedies(gpu));
  if (config.dryRun) return 0;
  using prepared = await job.prepare(gpu);
  if (config.resume) await prepareResumedFolder(folder);
  using _lock = config.resume ? undefined : await prepareRunFolder(folder, folderOptions);
  await writeRunConfig(folder, job.settings(folder));
  const keepBytes = config.resume ? found?.metricsBytes ?? 0 : undefined;
  const { csv, tensorboard } = config;
  using logs = openRunLogs(folder, { csv, tensorboard, isByPhase: isDemo, keepBytes });
  const metrics = combineSinks([logs, ...(dashboard ? [dashboard.sink] : [])]);
  dashboard?.show(folder);
  const session: Session = { ...hooks, gpu, folder, metrics };
  const results = await prepared.run(session, {
    ...{ identity, found, adapter: gpu.adapter.name },
    ...{ metricsBytes: () => logs.flush(), last: () => logs.last },
  }).catch((error) => {
    throw error instanceof RunStoppedError && prepared.isSaved ? namingResume(error, folder) : error;
  });
  const outcome = { adapter: gpu.adapter.name, results };
  await writeJson(join(folder, "results.json"), outcome);
  const files = `model/, metrics.jsonl, results.json, ${SAMPLES_FILE}, config.json`;
  result({ folder, ...outcome }, `\nWrote ${folder}: ${files}`);
  return 0;
}

/** The same with the command that goes on. */
function namingResume({ message, cause }: RunStoppedError, folder: string): RunStoppedError {
  return new RunStoppedError(`${message}; ${resumeCommand(folder)} goes on`, { cause });
}

/** Says what the run's data is like, in place of the run. */
async function describeData(config: RunConfig, invocation: Invocation): Promise<number> {
  if (config.model === undefined && config.data === undefined) {
    throw new ConfigError("Cannot use inspect: expected --model and --data with it, found neither");
  }
  const { log, progress, result } = openConsole(invocation);
  const report = await inspectRun(config, { log, progress });
  result(report, formatDataReport(report).trimEnd());
  return 0;
}

/** A run, of whatever kind. */
interface Job {
  /** The content of its config.json. */
  readonly settings: (folder: string) => Record<string, unknown>;
  readonly plan: (gpu: Gpu) => Promise<MemoryPlan>;
  /** What would make it fit the budget. */
  readonly remedies: (gpu: Gpu) => Promise<Remedy[]>;
  /** What its result depends on: by it a run that goes on is told from another. */
  readonly identity: (gpu: Gpu) => Promise<Readonly<Record<string, unknown>>>;
  /** Loads what it needs; nothing is written yet. */
  readonly prepare: (gpu: Gpu) => Promise<PreparedJob>;
}

interface PreparedJob extends Disposable {
  /** Whether a run that is stopped can be resumed. */
  readonly isSaved: boolean;
  readonly run: (
    session: Session,
    options: SavedRun,
  ) => Promise<readonly object[]>;
}

/** What a run's checkpoints and cards need besides its settings. */
type SavedRun = Pick<RunCheckpointOptions, "identity" | "found" | "metricsBytes"> & RunCardOptions;

function trainingJob(data: RunData, hooks: RunHooks): Job {
  const referenceCache = join(cacheFolder(), "reference-logps");
  const plan = (gpu: Gpu, of: RunData) => planTrainingRun(planningOptions(gpu), of, referenceCache);
  return {
    settings: (folder) => effectiveSettings({ ...data.config, output: folder }),
    plan: (gpu) => plan(gpu, data),
    remedies: (gpu) => findRemedies(data, (changed) => plan(gpu, changed)),
    identity: (gpu) => runIdentity(data, { adapter: gpu.adapter.name }),
    async prepare(gpu) {
      const prepared = await withProgress(
        hooks,
        "loading, MiB",
        (onProgress) => loadRun(gpu, data, { onProgress: inMebibytes(onProgress) }),
      );
      return {
        isSaved: isSaved(data.config),
        async run(started, options) {
          const card = runCard(data, options);
          const session = withCheckpoints({ ...started, card }, prepared, options);
          const { model, tokenizer } = prepared.loaded;
          const answers = prepared.examples
            ? (prepared.evalExamples ?? []).filter(({ desirable }) => desirable)
            : prepared.evalPairs.map((pair) => pair.chosen);
          const sample = (phase: string) => writeSamples(session, model, { phase, tokenizer, answers });
          await sample("before");
          const results = await runTraining(session, prepared, { cacheFolder: referenceCache });
          await card.finish(results);
          await sample("after");
          return results;
        },
        [Symbol.dispose]: () => prepared[Symbol.dispose](),
      };
    },
  };
}

function isSaved({ saveSteps, saveMinutes }: RunConfig): boolean {
  return saveSteps !== undefined || saveMinutes > 0;
}

/** The run, saved as its settings say. */
function withCheckpoints(
  session: Session,
  { config, loaded: { model, tokenizer } }: PreparedRun,
  options: SavedRun,
): Session {
  const { saveSteps, saveMinutes, saveTotalLimit: keep, maxShardGb } = config;
  if (!isSaved(config) && !options.found) return session;
  const checkpoints = runCheckpoints({
    ...options,
    ...{ folder: session.folder, keep, saveMinutes },
    ...(saveSteps === undefined ? {} : { saveSteps }),
    saveModel(folder) {
      const card = session.card?.text(model);
      return saveTrained(folder, model, { tokenizer, maxShardGb, card });
    },
  });
  return { ...session, checkpoints };
}

function demoJob(config: RunConfig, { given }: Invocation): Job {
  if (resolveUnpaired(config)) {
    throw new ConfigError(
      `Cannot demonstrate ${config.loss}: expected --model and --data with it, found neither`,
    );
  }
  const resolved = resolveLoss(config);
  const settings = demoSettings(config, given, { lossOptions: resolved?.options ?? {} });
  const [loss, data] = [resolved!, demoData(settings)];
  return {
    settings: () => ({ ...settings }),
    plan: (gpu) => planRun(planningOptions(gpu), (session) => runDemo(session, settings, { loss, data })),
    remedies: () => Promise.resolve([]),
    identity: () => Promise.resolve({}),
    prepare: () =>
      Promise.resolve({
        isSaved: false,
        run: (session, options) => demonstrate(session, settings, { ...options, loss, data }),
        [Symbol.dispose]() {},
      }),
  };
}

async function demonstrate(
  session: Session,
  settings: DemoSettings,
  options: RunCardOptions & { loss: ResolvedPairLoss; data: DemoData },
): Promise<PhaseResult[]> {
  session.log(
    "The demonstration: a model learns arithmetic, then preferences between right answers and answers with one wrong " +
      `digit, by ${settings.loss} alone and with SPO around it. It writes ${session.folder}.`,
  );
  const card = demoCard(settings, options);
  const results = await runDemo({ ...session, card }, settings, options);
  await card.finish(results);
  return results;
}
