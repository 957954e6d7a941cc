/**
 * Where a training step's time goes: the GPU's own time of each kernel, beside what the adapter can do.
 * @module
 */
import type { Gpu } from "../engine/gpu.ts";
import { type Conditions, readConditions } from "./bench/conditions.ts";
import type { Objective } from "./objective.ts";
import { type Ceilings, measureCeilings, planCeilings } from "./profile/ceilings.ts";
import { partOf, type StepPart } from "./profile/costs.ts";
import { type KernelTime, observeTimes, type TimeObserver } from "./profile/timestamps.ts";
import { train, type TrainOptions } from "./trainer.ts";

export { formatProfile, PREFERENCE_GOAL } from "./profile/format.ts";

/** What to profile. */
export interface ProfileOptions {
  /** The step, in words. */
  readonly title: string;
  /** How it trains; schedule and batches as in a run, the number of steps aside. */
  readonly train: Omit<TrainOptions, "logEvery" | "onLog">;
  /** Tokens of each sequence that an item puts through the model. */
  readonly sequenceLengths: (item: number) => readonly number[];
  /** Steps that are timed; as many run before them to warm up, and as many unobserved. */
  readonly steps?: number;
  /** Known already; measured where absent. */
  readonly ceilings?: Ceilings;
  /** Told what is measured next. */
  readonly log?: (line: string) => void;
}

/** One kernel's share of a step. */
export interface KernelProfile extends KernelTime {
  /** All of the numbers below are per step. */
  readonly ms: number;
  /** Of the time of all kernels, 0 to 1. */
  readonly share: number;
  /** Undefined where its operations are not known, as is the intensity. */
  readonly gflops?: number;
  readonly gbPerSecond: number;
  /** Operations a byte. */
  readonly intensity?: number;
  /** What it reaches of min(compute, intensity x bandwidth), 0 to 1. */
  readonly ofRoof: number;
}

/** Everything that was measured. */
export interface ProfileReport {
  readonly title: string;
  readonly conditions: Conditions;
  readonly ceilings: Ceilings;
  readonly steps: number;
  /** Wall time of a step as it runs in training. */
  readonly stepMs: number;
  /** Wall time of a step with its kernels timed one by one. */
  readonly observedStepMs: number;
  /** Sum of the kernels' times, a step. */
  readonly kernelMs: number;
  /** The largest share first. */
  readonly kernels: readonly KernelProfile[];
  /** What the step's kernels are part of; the preference part's share is to be under {@link PREFERENCE_GOAL}. */
  readonly parts: Readonly<Record<StepPart, PartProfile>>;
}

/** All kernels of one part of a step. */
export interface PartProfile {
  /** A step. */
  readonly ms: number;
  /** Of the time of all kernels, 0 to 1. */
  readonly share: number;
  /** Their names, the largest share first. */
  readonly kernels: readonly string[];
}

/** Timed steps by default: few on a software adapter, whose steps are long. */
const STEPS = { cpu: 3, gpu: 10 };

function stepsOf({ adapter }: Gpu, { steps }: Pick<ProfileOptions, "steps">): number {
  return steps ?? STEPS[adapter.isCpu ? "cpu" : "gpu"];
}

/**
 * Takes the memory of {@link profileStep} on a planning device, but for the timestamps, and gives it back.
 *
 * @param objective on a planning device
 * @param options as for {@link profileStep}
 */
export async function planProfileStep(objective: Objective, options: ProfileOptions): Promise<void> {
  const { gpu } = objective.model;
  const steps = stepsOf(gpu, options);
  if (!options.ceilings) await planCeilings(gpu);
  await train(objective, {
    ...options.train,
    schedule: { ...options.train.schedule, maxSteps: 3 * steps },
    logEvery: steps,
  });
}

/**
 * Runs a training step unobserved and then with every kernel timed.
 *
 * @param objective what is trained; its model is changed
 * @param options how, and what it is called
 * @returns all times; `formatProfile` makes a roofline table of them
 * @throws {ConfigError} when the adapter has no timestamp queries
 * @throws {TrainingError} when a loss is not finite
 */
export async function profileStep(objective: Objective, options: ProfileOptions): Promise<ProfileReport> {
  const { gpu } = objective.model;
  const { title, log = () => {} } = options;
  const steps = stepsOf(gpu, options);
  const conditions = readConditions(gpu);
  // Made and let go first: an adapter without timestamps is refused before anything is measured.
  observeTimes(gpu, { attendedKeys: 0 })[Symbol.dispose]();
  log("the adapter's ceilings: matrix products, a copy");
  const ceilings = options.ceilings ?? await measureCeilings(gpu, { samples: 3, sampleMs: 250 });
  log(title);
  const { times, stepMs, observedStepMs } = await timeSteps(gpu, objective, { ...options, steps });
  const totalNs = times.reduce((total, { ns }) => total + ns, 0);
  const kernels = times.map((time) => profileOf(time, { ceilings, steps, totalNs }))
    .toSorted((a, b) => b.ns - a.ns);
  const part = (of: StepPart): PartProfile => sumPart(kernels.filter(({ name }) => partOf(name) === of));
  return {
    ...{ title, conditions, ceilings, steps, stepMs, observedStepMs },
    kernelMs: totalNs / steps / 1e6,
    kernels,
    parts: { model: part("model"), optimizer: part("optimizer"), preference: part("preference") },
  };
}

function sumPart(kernels: readonly KernelProfile[]): PartProfile {
  const sum = (of: (kernel: KernelProfile) => number) =>
    kernels.reduce((total, kernel) => total + of(kernel), 0);
  return {
    ms: sum(({ ms }) => ms),
    share: sum(({ share }) => share),
    kernels: kernels.map(({ name }) => name),
  };
}

/** Three runs of so many steps in one training: to warm up, unobserved, observed. */
async function timeSteps(
  gpu: Gpu,
  objective: Objective,
  options: ProfileOptions & { steps: number },
): Promise<{ times: KernelTime[]; stepMs: number; observedStepMs: number }> {
  const { steps, sequenceLengths } = options;
  using stack = new DisposableStack();
  const marks: number[] = [];
  let observer: TimeObserver | undefined;
  const watched: Objective = {
    ...objective,
    pack(items, size) {
      if (observer) observer.context = { attendedKeys: meanKeys(items, sequenceLengths) };
      return objective.pack(items, size);
    },
  };
  await train(watched, {
    ...options.train,
    schedule: { ...options.train.schedule, maxSteps: 3 * steps },
    logEvery: steps,
    // Called after a readback: everything recorded before is done.
    onLog: () => {
      marks.push(performance.now());
      if (marks.length === 2) observer = stack.use(observeTimes(gpu, { attendedKeys: 0 }));
      if (marks.length === 3) gpu.queue.observer = null;
    },
  });
  const [warm, plain, observed] = marks;
  return {
    times: await observer!.read(),
    stepMs: (plain - warm) / steps,
    observedStepMs: (observed - plain) / steps,
  };
}

/** Causal: token t of a sequence sees t + 1 keys. */
function meanKeys(items: Uint32Array, sequenceLengths: (item: number) => readonly number[]): number {
  let [tokens, keys] = [0, 0];
  for (const length of Array.from(items, sequenceLengths).flat()) {
    tokens += length;
    keys += length * (length + 1) / 2;
  }
  return keys / tokens;
}

function profileOf(
  time: KernelTime,
  { ceilings, steps, totalNs }: { ceilings: Ceilings; steps: number; totalNs: number },
): KernelProfile {
  const { ns, flops, bytes } = time;
  const gbPerSecond = bytes / ns;
  const gflops = flops === undefined ? undefined : flops / ns;
  return {
    ...time,
    dispatches: time.dispatches / steps,
    bytes: bytes / steps,
    flops: flops === undefined ? undefined : flops / steps,
    ms: ns / steps / 1e6,
    share: ns / totalNs,
    gflops,
    gbPerSecond,
    intensity: flops === undefined ? undefined : flops / bytes,
    // min(compute, intensity x bandwidth) is reached in the greater of the two shares.
    ofRoof: Math.max(gbPerSecond / ceilings.gbPerSecond, (gflops ?? 0) / ceilings.gflops),
  };
}
