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
  /** Where what is varied is a positive number of any size. */
  readonly scale?: "log";
  readonly rows: readonly StudyRow[];
}

/** A row: one setting. */
export interface StudyRow {
  readonly label: string;
  /** The same for a figure, which has less room. */
  readonly short?: string;
  /** Its place in the group's figure; a row of its own there by default. */
  readonly at?: { readonly series: string; readonly value: number };
  readonly runs: readonly StudyRun[];
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
  sft: DEMO_SFT,
  preference: DEMO_PREFERENCE,
  heldOut: 500,
  massProblems: 50,
  evolutionProblems: 16,
  evolutionEvery: 30,
  seed: 0,
  seeds: 3,
  sweeps: {
    initialization: [0, 0.25, 0.5],
    corruptedDigits: [2, 4],
    beta: [0.03, 0.3],
    learningRate: [1e-4, 1e-3],
    lambda: [0.1, 10],
    solvers: true,
  },
};

/** Less of everything: one seed, fewer steps, and no sweep but that of lambda. */
export const QUICK_STUDY: StudySettings = {
  ...FULL_STUDY,
  preference: { ...DEMO_PREFERENCE, steps: 80 },
  evolutionEvery: 20,
  seeds: 1,
  heldOut: 200,
  massProblems: 20,
  sweeps: {
    initialization: [],
    corruptedDigits: [],
    beta: [],
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
    value: number,
    change: Omit<Partial<StudyRun>, "name" | "loss">,
  ): StudyRow[] =>
    [["DPO", NO_SPO] as const, ["DPO + SPO", STUDY_SPO] as const].map(([series, spo]) => ({
      label: `${label}, ${series}`,
      at: { series, value },
      runs: [runOf(settings, { ...change, name: `${series}, ${label}`, loss: "dpo", spo })],
    }));
  const group = (
    of: Omit<StudyGroup, "rows">,
    values: readonly number[],
    row: (value: number) => readonly StudyRow[],
  ): StudyGroup[] => values.length <= 1 ? [] : [{ ...of, rows: values.flatMap(row) }];
  const sorted = (values: readonly number[], own: number) => [...values, own].sort((a, b) => a - b);
  return [
    ...group(
      { title: "Initialization", varies: "share of the SFT steps before DPO" },
      sorted(sweeps.initialization, 1),
      (initialization) =>
        withAndWithout(`${initialization * 100} %`, initialization * 100, { initialization }),
    ),
    ...group(
      { title: "Edit distance", varies: "digits in which chosen and rejected differ" },
      sorted(sweeps.corruptedDigits, 1),
      (corruptedDigits) => withAndWithout(String(corruptedDigits), corruptedDigits, { corruptedDigits }),
    ),
    ...group(
      { title: "Beta", varies: "beta", scale: "log" },
      sorted(sweeps.beta, 0.1),
      (beta) => withAndWithout(String(beta), beta, { lossOptions: { beta } }),
    ),
    ...group(
      { title: "Learning rate", varies: "learning rate", scale: "log" },
      sorted(sweeps.learningRate, preference.learningRate),
      (learningRate) => withAndWithout(String(learningRate), learningRate, { learningRate }),
    ),
    ...lambdaSweep(settings),
    ...(sweeps.solvers ? [solvers(settings)] : []),
  ];
}

function lambdaSweep(settings: StudySettings): StudyGroup[] {
  const { lambda: lambdas } = settings.sweeps;
  if (lambdas.length === 0) return [];
  const all = [...lambdas, 1].sort((a, b) => a - b);
  const row = (name: string, change: Partial<StudyRun>, at?: StudyRow["at"]): StudyRow => ({
    label: name,
    ...(at ? { at } : {}),
    runs: [runOf(settings, { ...change, name, loss: change.loss ?? "dpo" })],
  });
  const spo = (options: Partial<SpoOptions>) => parseSpoOptions({ solver: "penalty", ...options });
  return [{
    ...{ title: "Lambda", varies: "penalty", scale: "log" },
    rows: [
      row("none", {}),
      ...all.map((value) =>
        row(`linear, lambda ${value}`, { spo: spo({ lambda: value }) }, { series: "SPO, linear", value })
      ),
      ...all.map((value) =>
        row(`DPO + SFT, weight ${value}`, { loss: "dpo,sft", lossWeights: `1,${value}` }, {
          series: "DPO + SFT",
          value,
        })
      ),
      ...all.map((value) =>
        row(`hinge, lambda ${value}`, { spo: spo({ penalty: "hinge", lambda: value }) }, {
          series: "SPO, hinge",
          value,
        })
      ),
    ],
  }];
}

function solvers(settings: StudySettings): StudyGroup {
  const row = (label: string, short: string, options: Partial<SpoOptions>): StudyRow => ({
    ...{ label, short },
    runs: [runOf(settings, { name: label, loss: "dpo", spo: parseSpoOptions(options) })],
  });
  return {
    title: "Solvers",
    varies: "solver",
    rows: [
      row("none", "none", {}),
      row("penalty, linear, lambda 1", "linear", { solver: "penalty" }),
      row("penalty, hinge, lambda 1, v* initial", "hinge", { solver: "penalty", penalty: "hinge" }),
      row("penalty, hinge, lambda 1, v* track", "hinge, track", {
        solver: "penalty",
        penalty: "hinge",
        vStar: "track",
        innerLearningRate: 0.05,
      }),
      row("penalty, quadratic, lambda 10", "quadratic", {
        solver: "penalty",
        penalty: "quadratic",
        lambda: 10,
      }),
      row("penalty, linear, dual, rate 1", "linear, dual", {
        solver: "penalty",
        lambdaSchedule: "dual",
        dualRate: 1,
      }),
      row("alternating, rate 3e-4", "alternating", { solver: "alternating", innerLearningRate: 3e-4 }),
      row("unrolled, first-order, alpha 0.1", "unrolled", { solver: "unrolled", innerLearningRate: 0.1 }),
      row("unrolled, hvp, alpha 0.1, rho 1", "unrolled, hvp", {
        solver: "unrolled",
        hypergradient: "hvp",
        innerLearningRate: 0.1,
        rho: 1,
      }),
    ],
  };
}
