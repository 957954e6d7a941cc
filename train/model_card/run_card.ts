/**
 * The cards of a run's models.
 * @module
 */
import { settingsWithEffect } from "../checkpoints/identity.ts";
import { resolveLoss, resolveUnpaired } from "../config.ts";
import type { DemoSettings } from "../demo_settings.ts";
import type { ResolvedPairLoss } from "../losses/pair_loss.ts";
import { LOSS_PAPERS, SPO_PAPER } from "../losses/papers.ts";
import { readSpoOptions } from "../losses/spo.ts";
import type { MetricsRecord } from "../metrics.ts";
import type { Model } from "../models/model.ts";
import type { RunData } from "../run_data.ts";
import {
  type CardData,
  type CardFacts,
  type CardLoss,
  type CardTraining,
  modelCard,
  trainingChapter,
} from "./card.ts";
import { writeCard } from "./files.ts";

/** What the cards of a run's models are written from. */
export interface RunCard {
  /** The card of a model as it is now. */
  text(model: Pick<Model, "adapter">): string;
  /** The same of a model that stays in a folder: {@link RunCard.finish} writes it there again. */
  textFor(folder: string, model: Pick<Model, "adapter">): string;
  /**
   * Writes the cards again, with the run's results.
   *
   * @param results content of results.json
   */
  finish(results: readonly object[]): Promise<void>;
}

/** What only the run under way knows. */
export interface RunCardOptions {
  /** The GPU, or what stands for it. */
  readonly adapter: string;
  /** The record that was logged last. */
  readonly last: () => MetricsRecord | undefined;
}

/** What a run knows of itself: the facts of a model that was saved after a record. */
type Facts = (state: {
  /** Its base's name, where the model is an adapter. */
  readonly base?: string;
  readonly kind: CardFacts["kind"];
  /** The last record. */
  readonly metrics?: MetricsRecord;
}) => { readonly facts: CardFacts; readonly training: CardTraining };

/**
 * The cards of a run on files.
 *
 * @param data what it read
 * @param options.identity of the run, with the hashes of its files
 */
export function runCard(
  data: RunData,
  { identity, adapter, last }: RunCardOptions & { identity: Readonly<Record<string, unknown>> },
): RunCard {
  const { config } = data;
  const settings = settingsWithEffect(config);
  const pairLoss = resolveLoss(config);
  const { spo } = config;
  const hasSpo = pairLoss !== undefined && spo.solver !== "none";
  const loss = pairLoss
    ? lossOf(pairLoss)
    : { ...named([config.loss]), options: resolveUnpaired(config)?.options ?? {} };
  return createRunCard(last, ({ base = config.model, kind, metrics }) => ({
    facts: {
      kind,
      base,
      summary: kind === "adapter"
        ? "A LoRA adapter in PEFT's layout."
        : "A whole model in Hugging Face's layout.",
      tags: [...loss.names, ...(hasSpo ? ["spo"] : [])],
    },
    training: {
      data: [
        ...files("training", config.data, identity.data),
        ...files("held out", config.evalData, identity.evalData),
        ...files("lower level of SPO", spo.sftData, identity.sftData),
      ],
      counts: countsOf(data),
      loss,
      ...(hasSpo ? { spo: { paper: SPO_PAPER, settings: withoutFiles(readSpoOptions(spo)) } } : {}),
      settings,
      adapter,
      metrics,
    },
  }));
}

/**
 * The cards of the demonstration's models, one after each of its phases.
 *
 * @param settings of the demonstration
 * @param options.loss its pairwise loss
 */
export function demoCard(
  settings: DemoSettings,
  { loss, adapter, last }: RunCardOptions & { loss: ResolvedPairLoss },
): RunCard {
  return createRunCard(last, ({ kind, metrics }) => {
    const phase = String(metrics?.phase ?? "sft");
    const ofPhase = phase === "sft" ? { ...named(["sft"]), options: {} } : lossOf(loss);
    const hasSpo = phase.endsWith("+spo");
    return {
      facts: {
        kind,
        summary: "A model of Keel's demonstration, which calculates in characters; it is of no other use.",
        tags: [...ofPhase.names, ...(hasSpo ? ["spo"] : [])],
      },
      training: {
        data: [{ use: "training", name: `generated, seed ${settings.seed}` }],
        counts: [`${settings.sft.examples} examples`, `${settings.preference.pairs} pairs`],
        loss: ofPhase,
        ...(hasSpo ? { spo: { paper: SPO_PAPER, settings: readSpoOptions(settings.spo) } } : {}),
        settings: { ...settings },
        adapter,
        metrics,
      },
    };
  });
}

function createRunCard(last: RunCardOptions["last"], factsOf: Facts): RunCard {
  const written = new Map<string, (results: readonly object[]) => string>();
  const now = ({ adapter }: Pick<Model, "adapter">) => {
    const { facts, training } = factsOf({
      ...{ kind: adapter ? "adapter" : "model", metrics: last() },
      base: adapter?.config.base ?? undefined,
    });
    return (results?: readonly object[]) =>
      modelCard({ ...facts, training: trainingChapter({ ...training, results }) });
  };
  return {
    text: (model) => now(model)(),
    textFor(folder, model) {
      const text = now(model);
      written.set(folder, text);
      return text();
    },
    async finish(results) {
      for (const [folder, text] of written) await writeCard(folder, text(results));
    },
  };
}

function lossOf({ name, options }: ResolvedPairLoss): CardLoss {
  return { ...named(name.split("+")), options };
}

function named(names: readonly string[]): Pick<CardLoss, "names" | "papers"> {
  const papers = names.flatMap((name) => LOSS_PAPERS[name as keyof typeof LOSS_PAPERS] ?? []);
  return { names, papers: [...new Set(papers)] };
}

/** @param hashes one for each file, as the run's identity has them */
function files(use: string, paths: string | undefined, hashes: unknown): CardData[] {
  const sha256 = Array.isArray(hashes) ? hashes.map(String) : [];
  return (paths?.split(",") ?? []).map((name, index) => ({
    ...{ use, name },
    ...(index in sha256 ? { sha256: sha256[index] } : {}),
  }));
}

function countsOf(
  { pairs, examples, completions, sft, evalPairs, evalExamples, evalCompletions }: RunData,
): string[] {
  const [items, kind] = examples
    ? [examples, "labelled answers"]
    : completions
    ? [completions, "completions"]
    : [pairs, "pairs"];
  const evaluated = evalExamples ?? evalCompletions ?? evalPairs;
  return [
    `${items.length} ${kind} to train on`,
    ...(sft ? [`${sft.length} completions for the lower level`] : []),
    `${evaluated.length} to measure with`,
  ];
}

function withoutFiles({ sftData: _, ...settings }: Record<string, unknown>): Record<string, unknown> {
  return settings;
}
