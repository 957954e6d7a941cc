/**
 * What every kind of evaluation starts from, and the one place where a model is opened for it.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { EvalFlags } from "../commands/eval.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Model } from "../models/model.ts";
import { loadModelOrAdapter, type ModelFolders, planModelOrAdapter } from "../models/load_model.ts";
import type { ModelConfig } from "../models/registry.ts";
import type { RunHooks } from "../session.ts";
import type { Detail } from "./files.ts";
import type { EvaluationReport } from "./report.ts";

/** A checked evaluation. */
export interface PreparedEvaluation {
  readonly settings: EvaluationReport["settings"];
  /** On a planning device, the largest of what `run` does. */
  readonly plan: (gpu: Gpu) => Promise<void>;
  /** Runs it; each example is told. */
  readonly run: (gpu: Gpu, hooks: RunHooks, onDetail: (detail: Detail) => Promise<void>) => Promise<
    EvaluationReport["results"]
  >;
}

/** What every kind of evaluation starts from. */
export interface EvaluationInput {
  readonly flags: EvalFlags;
  /** As the user named the model. */
  readonly name: string;
  /** Where its files are. */
  readonly folders: ModelFolders;
  readonly modelConfig: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** Ids that end what the model generates. */
  readonly stopIds: readonly number[];
  /** The longest sequence that the model is given. */
  readonly maxLength: number;
  readonly log: (line: string) => void;
  /** From the name of a model to its folder. */
  readonly resolve: (name: string) => Promise<string>;
}

/**
 * Loads a model, or an adapter on its base, for evaluation; the caller disposes it.
 *
 * @param gpu the device; on a planning device, memory is taken and no weights are read
 * @param input folders, type and longest sequence
 */
export async function openModel(
  gpu: Gpu,
  { folders, modelConfig: config, flags, maxLength }: Pick<
    EvaluationInput,
    "folders" | "modelConfig" | "flags" | "maxLength"
  >,
): Promise<Model> {
  const options = { trainable: false, positions: maxLength, dtype: flags.dtype };
  if (gpu.isPlanning) return await planModelOrAdapter(gpu, { folders, config }, options);
  return (await loadModelOrAdapter(gpu, folders, options)).model;
}
