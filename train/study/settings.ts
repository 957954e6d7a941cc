/**
 * The study's numbers, and the runs that it is made of.
 * @module
 */
import { DEMO_MODEL, DEMO_PREFERENCE, DEMO_SFT, type PhaseSettings } from "../demo_settings.ts";
import { parseSpoOptions, type SpoOptions } from "../losses/spo.ts";

/** Everything that the study's results depend on. */
export interface StudySettings {
  /** Keys of Hugging Face's config.json. */
  readonly model: Readonly<Record<string, unknown>>;
  readonly sft: PhaseSettings & { readonly examples: number };
  readonly preference: PhaseSettings & { readonly pairs: number };
  /** Held-out problems that are decoded, and whose pairs are scored. */
  readonly heldOut: number;
  /** Problems over which probability mass is measured after training: each has 37 answers to score. */
  readonly massProblems: number;
  /** The same during training. */
  readonly evolutionProblems: number;
  /** Steps between two of those measurements. */
  readonly evolutionEvery: number;
  /** The first seed; the others follow. */
  readonly seed: number;
  readonly seeds: number;
  /** What is varied, each value with and without SPO on the first seed; the main comparison's value is left out. */
  readonly sweeps: {
    /** Shares of the SFT steps after which preference training starts. */
    readonly initialization: readonly number[];
    /** Digits in which rejected answers differ. */
    readonly corruptedDigits: readonly number[];
    readonly beta: readonly number[];
    readonly learningRate: readonly number[];
    /** Of the linear and the hinge penalty. */
    readonly lambda: readonly number[];
    /** Whether SPO's other solvers are run. */
    readonly solvers: boolean;
  };
}

/** One training from SFT weights. What it is called takes no part in its result. */
export interface StudyRun {
  /** In tables, such as `dpo+spo`. */
  readonly name: string;
  readonly seed: number;
  /** Share of the SFT steps before it. */
  readonly initialization: number;
  /** Digits in which rejected answers differ from chosen ones. */
  readonly corruptedDigits: number;
  /** As `--loss` has it; `sft` goes on with supervised fine-tuning, on the chosen answers. */
  readonly loss: string;
  readonly lossWeights?: string;
  /** Where they are not the loss's defaults. */
  readonly lossOptions: Readonly<Record<string, unknown>>;
  readonly spo: SpoOptions;
  readonly learningRate: number;
}

/** The runs of one table. */
export interface StudyGroup {
  readonly title: string;
  /** What the rows vary, as the first column's header. */
  readonly varies: string;
  readonly rows: readonly { readonly label: string; readonly runs: readonly StudyRun[] }[];
}

/** Base methods of the paper's Table 2, and how tables call them. */
export const BASE_METHODS = {
  dpo: "DPO",
  cpo: "CPO",
  dpop: "DPOP",
  rdpo: "R-DPO",
  simpo: "SimPO",
  alphadpo: "AlphaDPO",
} as const;

/** All of it: three seeds. */
export const FULL_STUDY: StudySettings = {
  model: DEMO_MODEL,
  sft: { ...DEMO_SFT, steps: 600, examples: 76_800 },
  preference: DEMO_PREFERENCE,
  heldOut: 500,
  massProblems: 50,
  evolutionProblems: 16,
  evolutionEvery: 15,
  seed: 0,
  seeds: 3,
  sweeps: {
    initialization: [0, 0.25, 0.5],
    corruptedDigits: [2, 4],
    beta: [0.03, 0.3, 1],
    learningRate: [1e-4, 1e-3],
    lambda: [0.1, 0.3, 3, 10],
    solvers: true,
  },
};

/** Less of everything: one seed, and no sweep of the learning rate, the edit distance or the solvers. */
export const QUICK_STUDY: StudySettings = {
  ...FULL_STUDY,
  seeds: 1,
  heldOut: 200,
  massProblems: 20,
  sweeps: {
    initialization: [0, 0.5],
    corruptedDigits: [],
    beta: [1],
    learningRate: [],
    lambda: [0.1],
    solvers: false,
  },
};

/** Tables call SPO's default so: a linear penalty of strength 1 on the batch's chosen answers. */
export const STUDY_SPO: SpoOptions = parseSpoOptions({ solver: "penalty" });
const NO_SPO: SpoOptions = parseSpoOptions({});

/** A run of the main comparison, changed. */
function runOf(
  settings: StudySettings,
  change: Partial<StudyRun> & { name: string; loss: string },
): StudyRun {
  const { learningRate } = settings.preference;
  return {
    ...{
      seed: settings.seed,
      initialization: 1,
      corruptedDigits: 1,
      spo: NO_SPO,
      learningRate,
      lossOptions: {},
    },
    ...change,
  };
}

/** Seeds of the main comparison. */
export function studySeeds({ seed, seeds }: StudySettings): number[] {
  return Array.from({ length: seeds }, (_, index) => seed + index);
}

/**
 * The comparison: the base methods without and with SPO, and two controls.
 *
 * @param settings of the study
 * @returns a group whose rows have one run a seed
 */
export function comparison(settings: StudySettings): StudyGroup {
  const row = (label: string, change: Partial<StudyRun> & { name: string; loss: string }) => ({
    label,
    runs: studySeeds(settings).map((seed) => runOf(settings, { ...change, seed })),
  });
  return {
    title: "Comparison",
    varies: "method",
    rows: [
      ...Object.entries(BASE_METHODS).flatMap(([loss, label]) => [
        row(label, { name: loss, loss }),
        row(`${label} + SPO`, { name: `${loss}+spo`, loss, spo: STUDY_SPO }),
      ]),
      row("DPO + SFT", { name: "dpo,sft", loss: "dpo,sft", lossWeights: "1,1" }),
      row("SFT continued", { name: "sft", loss: "sft" }),
    ],
  };
}

/**
 * What each solver and each sensitivity is shown by; every group begins with the comparison's own run.
 *
 * @param settings of the study
 */
export function sensitivities(settings: StudySettings): StudyGroup[] {
  const { sweeps, preference } = settings;
  const withAndWithout = (
    label: string,
    change: Omit<Partial<StudyRun>, "name" | "loss">,
  ): StudyGroup["rows"] => [
    { label: `${label}, DPO`, runs: [runOf(settings, { ...change, name: `dpo, ${label}`, loss: "dpo" })] },
    {
      label: `${label}, DPO + SPO`,
      runs: [runOf(settings, { ...change, name: `dpo+spo, ${label}`, loss: "dpo", spo: STUDY_SPO })],
    },
  ];
  const group = <Value>(
    title: string,
    varies: string,
    values: readonly Value[],
    row: (value: Value) => StudyGroup["rows"],
  ): StudyGroup[] => values.length <= 1 ? [] : [{ title, varies, rows: values.flatMap(row) }];
  const sorted = (values: readonly number[], own: number) => [...values, own].sort((a, b) => a - b);
  return [
    ...group(
      "Initialization",
      "share of the SFT steps before DPO",
      sorted(sweeps.initialization, 1),
      (initialization) => withAndWithout(`${initialization * 100} %`, { initialization }),
    ),
    ...group(
      "Edit distance",
      "digits in which chosen and rejected differ",
      sorted(sweeps.corruptedDigits, 1),
      (corruptedDigits) => withAndWithout(String(corruptedDigits), { corruptedDigits }),
    ),
    ...group(
      "Beta",
      "beta",
      sorted(sweeps.beta, 0.1),
      (beta) => withAndWithout(String(beta), { lossOptions: { beta } }),
    ),
    ...group(
      "Learning rate",
      "learning rate",
      sorted(sweeps.learningRate, preference.learningRate),
      (learningRate) => withAndWithout(String(learningRate), { learningRate }),
    ),
    ...lambdaSweep(settings),
    ...(sweeps.solvers ? [solvers(settings)] : []),
  ];
}

function lambdaSweep(settings: StudySettings): StudyGroup[] {
  const { lambda: lambdas } = settings.sweeps;
  if (lambdas.length === 0) return [];
  const all = [...lambdas, 1].sort((a, b) => a - b);
  const dpo = (name: string, change: Partial<StudyRun>) => ({
    label: name,
    runs: [runOf(settings, { ...change, name, loss: change.loss ?? "dpo" })],
  });
  const spo = (options: Partial<SpoOptions>) => parseSpoOptions({ solver: "penalty", ...options });
  return [{
    title: "Lambda",
    varies: "penalty",
    rows: [
      dpo("none", {}),
      ...all.map((lambda) => dpo(`linear, lambda ${lambda}`, { spo: spo({ lambda }) })),
      ...all.map((lambda) =>
        dpo(`DPO + SFT, weight ${lambda}`, { loss: "dpo,sft", lossWeights: `1,${lambda}` })
      ),
      ...all.map((lambda) => dpo(`hinge, lambda ${lambda}`, { spo: spo({ penalty: "hinge", lambda }) })),
    ],
  }];
}

function solvers(settings: StudySettings): StudyGroup {
  const row = (label: string, options: Partial<SpoOptions>) => ({
    label,
    runs: [runOf(settings, { name: label, loss: "dpo", spo: parseSpoOptions(options) })],
  });
  return {
    title: "Solvers",
    varies: "solver",
    rows: [
      row("none", {}),
      row("penalty, linear, lambda 1", { solver: "penalty" }),
      row("penalty, hinge, lambda 1, v* initial", { solver: "penalty", penalty: "hinge" }),
      row("penalty, hinge, lambda 1, v* track", {
        solver: "penalty",
        penalty: "hinge",
        vStar: "track",
        innerLearningRate: 0.05,
      }),
      row("penalty, quadratic, lambda 10", { solver: "penalty", penalty: "quadratic", lambda: 10 }),
      row("penalty, linear, dual, rate 1", { solver: "penalty", lambdaSchedule: "dual", dualRate: 1 }),
      row("alternating, rate 3e-4", { solver: "alternating", innerLearningRate: 3e-4 }),
      row("unrolled, first-order, alpha 0.1", { solver: "unrolled", innerLearningRate: 0.1 }),
      row("unrolled, hvp, alpha 0.1, rho 1", {
        solver: "unrolled",
        hypergradient: "hvp",
        innerLearningRate: 0.1,
        rho: 1,
      }),
    ],
  };
}
