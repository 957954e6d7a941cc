/**
 * `train`: settings to a planned, prepared and finished run.
 * @module
 */
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { cacheFolder } from "../cache_folder.ts";
import type { Invocation } from "../command_line.ts";
import {
  effectiveSettings,
  parseRunConfig,
  resolveLoss,
  resolveUnpaired,
  type RunConfig,
} from "../config.ts";
import { DEMO_ENTRIES, type DemoData, demoData, runDemo } from "../demo.ts";
import { type DemoSettings, demoSettings } from "../demo_settings.ts";
import type { ResolvedPairLoss } from "../losses/pair_loss.ts";
import { ConfigError } from "../errors.ts";
import { formatPlan, type MemoryPlan, planningOptions, planRun } from "../plan.ts";
import { findRemedies, planTrainingRun, refuseOverBudget, type Remedy } from "../plan_fit.ts";
import { loadRun, RUN_ENTRIES, runTraining } from "../run.ts";
import { readRunData, type RunData } from "../run_data.ts";
import {
  checkRunFolder,
  nextRunName,
  openMetrics,
  prepareRunFolder,
  writeJson,
  writeRunConfig,
} from "../run_folder.ts";
import { SAMPLES_FILE, writeSamples } from "../samples.ts";
import type { PhaseResult, RunHooks, Session } from "../session.ts";
import { openDevice, stopOnSignal, terminalProgress } from "../terminal.ts";

/** Where runs without --output go. */
const RUNS_FOLDER = "runs";

/**
 * @param invocation of `train`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 * @throws {RunStoppedError} on Ctrl-C
 */
export async function runTrain(invocation: Invocation): Promise<number> {
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
  hooks.log(`\nWrote ${folder}: model/, metrics.jsonl, results.json, ${SAMPLES_FILE}, config.json`);
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
          const { model, tokenizer } = prepared.loaded;
          const answers = prepared.examples
            ? (prepared.evalExamples ?? []).filter(({ desirable }) => desirable)
            : prepared.evalPairs.map((pair) => pair.chosen);
          const sample = (phase: string) => writeSamples(session, model, { phase, tokenizer, answers });
          await sample("before");
          const results = await runTraining(session, prepared, { cacheFolder: referenceCache });
          await sample("after");
          return results;
        },
        [Symbol.dispose]: () => prepared[Symbol.dispose](),
      };
    },
  };
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
