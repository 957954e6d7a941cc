/**
 * What every kind of evaluation starts from, and the one place where a model is opened for it.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { EvalFlags } from "../commands/eval.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Model } from "../models/model.ts";
import { loadModel } from "../models/model_files.ts";
import type { ModelConfig } from "../models/registry.ts";
import type { RunHooks } from "../session.ts";
import type { Detail } from "./files.ts";
import type { EvaluationReport } from "./report.ts";

/** A checked evaluation. */
export interface PreparedEvaluation {
  readonly settings: EvaluationReport["settings"];
  /** Runs it; each example is told. */
  readonly run: (gpu: Gpu, hooks: RunHooks, onDetail: (detail: Detail) => Promise<void>) => Promise<
    EvaluationReport["results"]
  >;
}

/** What every kind of evaluation starts from. */
export interface EvaluationInput {
  readonly flags: EvalFlags;
  /** The model's folder. */
  readonly folder: string;
  readonly modelConfig: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** The longest sequence that the model is given. */
  readonly maxLength: number;
  readonly log: (line: string) => void;
}

/**
 * Loads a model for evaluation; the caller disposes it.
 *
 * @param gpu the device
 * @param input folder, type and longest sequence
 */
export async function openModel(
  gpu: Gpu,
  { folder, flags, maxLength }: Pick<EvaluationInput, "folder" | "flags" | "maxLength">,
): Promise<Model> {
  const { model } = await loadModel(gpu, folder, {
    trainable: false,
    positions: maxLength,
    dtype: flags.dtype,
  });
  return model;
}
