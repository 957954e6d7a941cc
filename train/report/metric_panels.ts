/**
 * The figures of a run: which of its metrics stand together, and their units.
 * @module
 */

/** A figure of one or two metrics. */
export interface MetricPanel {
  readonly title: string;
  readonly label: string;
  readonly unit: string;
  /** The second is drawn as a dashed line. */
  readonly metrics: readonly { readonly key: string; readonly name?: string }[];
  /** From what was logged to the unit; 1 by default. */
  readonly factor?: number;
}

/** Panels that stand together. */
export interface PanelSection {
  readonly title: string;
  readonly note?: string;
  readonly panels: readonly MetricPanel[];
}

const PERCENT = { unit: "%", factor: 100 } as const;

function panel(title: string, key: string, axis: Omit<MetricPanel, "title" | "metrics">): MetricPanel {
  return { title, ...axis, metrics: [{ key }] };
}

function sides(title: string, keys: readonly [string, string], axis: Omit<MetricPanel, "title" | "metrics">) {
  const [chosen, rejected] = keys;
  return {
    title,
    ...axis,
    metrics: [{ key: chosen, name: "chosen" }, { key: rejected, name: "rejected" }],
  };
}

/** What Keel and TRL log, by name. What is not listed here has a figure of its own at the end of a report. */
export const PANEL_SECTIONS: readonly PanelSection[] = [
  {
    title: "Loss",
    panels: [
      panel("Loss", "loss", { label: "loss", unit: "nats" }),
      panel("Loss on held-out data", "eval_loss", { label: "loss", unit: "nats" }),
      panel("Preference loss, without SPO's penalty", "preference_loss", { label: "loss", unit: "nats" }),
      panel("Negative log-likelihood of the chosen answers", "nll_loss", {
        label: "loss",
        unit: "nats per token",
      }),
    ],
  },
  {
    title: "Preferences",
    note: "Rewards are implicit: beta times what an answer's log-prob gained on the reference.",
    panels: [
      sides("Rewards", ["rewards/chosen", "rewards/rejected"], { label: "reward", unit: "nats" }),
      panel("Reward margins", "rewards/margins", { label: "chosen - rejected", unit: "nats" }),
      panel("Reward accuracy", "rewards/accuracies", { label: "pairs in the right order", ...PERCENT }),
      sides("Log-probs of answers", ["logps/chosen", "logps/rejected"], {
        label: "log-prob",
        unit: "nats per answer",
      }),
    ],
  },
  {
    title: "Displacement",
    note:
      "What the answers' log-probs lost or gained against the reference. A chosen answer that becomes less likely " +
      "while its margin grows has been displaced.",
    panels: [
      sides("Change of log-probs", ["displacement/chosen_delta", "displacement/rejected_delta"], {
        label: "change",
        unit: "nats per answer",
      }),
      panel("Pairs whose chosen answer became less likely", "displacement/fraction", {
        label: "pairs",
        ...PERCENT,
      }),
      panel("Out-of-distribution mass", "displacement/ood_mass", { label: "probability", ...PERCENT }),
      panel("CHES score", "displacement/ches", { label: "CHES", unit: "squared norm of hidden states" }),
      panel("CHES score, length-normalized", "displacement/ches_normalized", {
        label: "CHES",
        unit: "squared norm of hidden states per token",
      }),
      panel("SPO's lower level", "spo/lower_level", { label: "NLL", unit: "nats per token" }),
      panel("Gap of the lower level to its best value", "spo/gap", { label: "gap", unit: "nats per token" }),
      panel("Best value of the lower level", "spo/v_star", { label: "NLL", unit: "nats per token" }),
      panel("Loss of the inner steps", "spo/inner_loss", { label: "loss", unit: "nats per token" }),
      panel("SPO's penalty weight", "spo/lambda", { label: "lambda", unit: "factor" }),
      panel("Absolute improvement term", "spo/improvement", { label: "R", unit: "nats per token" }),
    ],
  },
  {
    title: "Optimizer",
    panels: [
      panel("Gradient norm", "grad_norm", { label: "gradient norm", unit: "2-norm" }),
      panel("Learning rate", "learning_rate", { label: "learning rate", unit: "per update" }),
      panel("Loss scale", "loss_scale", { label: "loss scale", unit: "factor" }),
      panel("Skipped steps", "skipped_steps", { label: "skipped", unit: "updates" }),
    ],
  },
  {
    title: "Speed and memory",
    panels: [
      panel("Throughput", "tokens_per_second", { label: "throughput", unit: "tokens/s" }),
      panel("GPU memory in use", "gpu_memory_bytes", { label: "memory", unit: "MiB", factor: 1 / 2 ** 20 }),
      panel("Highest GPU memory", "gpu_memory_peak_bytes", {
        label: "memory",
        unit: "MiB",
        factor: 1 / 2 ** 20,
      }),
    ],
  },
];

/** Where a record stands, and not what was measured. */
export const POSITION_KEYS: readonly string[] = ["phase", "global_step", "epoch", "num_tokens"];

/**
 * Panels of metrics that no section lists, in the order of their names.
 *
 * @param keys that runs have logged
 */
export function otherPanels(keys: readonly string[]): MetricPanel[] {
  const known = new Set([
    ...POSITION_KEYS,
    ...PANEL_SECTIONS.flatMap(({ panels }) => panels.flatMap(({ metrics }) => metrics.map(({ key }) => key))),
  ]);
  return [...new Set(keys)].filter((key) => !known.has(key)).toSorted()
    .map((key) => panel(key, key, { label: key, unit: key.startsWith("loss/") ? "nats" : "as logged" }));
}
