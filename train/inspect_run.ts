/**
 * A run's data described as the run would read it; no device is needed for it.
 * @module
 */
import { join } from "node:path";
import type { RunConfig } from "./config.ts";
import { detectCompletionForm } from "./data/completion_records.ts";
import type { DataFileOptions, DataKind } from "./data/data_files.ts";
import { type DataReport, inspectData } from "./data/inspect.ts";
import { readRows } from "./data/readers.ts";
import { loadTokenizer } from "./data/tokenizer_folder.ts";
import { type ResolveHooks, resolveModel } from "./hub/resolve_model.ts";
import { readModelConfig } from "./models/config_file.ts";
import { architectureOf } from "./models/registry.ts";
import { partsOf, readRunFiles, readRunInputs, runDataKind } from "./run_data.ts";

/** Settings that shape how files without a run are described. */
export type InspectSettings = Pick<
  RunConfig,
  "data" | "dataWeights" | "maxLength" | "truncation" | "marginColumn" | "assistantOnlyLoss"
>;

/**
 * Describes the training files of a run. Records that are too long are counted, whatever the run does with them.
 *
 * @param config with `model` and `data`
 * @param hooks where a download is told
 * @throws {InputError} naming file and line or key
 */
export async function inspectRun(config: RunConfig, hooks: ResolveHooks): Promise<DataReport> {
  const { encoding } = await readRunInputs(config, hooks);
  return await inspectFiles(config, await runDataKind(config), encoding);
}

/**
 * Describes files by a model's tokenizer alone: neither weights nor, where the folder has none, a config.json are read.
 *
 * @param model a folder, or a name on the hub
 * @param settings with `data`
 * @param options.as what the files are read as; told from the first record where it is left out
 * @param options.hooks where a download is told
 * @throws {InputError} naming file and line or key
 */
export async function inspectByTokenizer(
  model: string,
  settings: InspectSettings,
  options: { as?: DataKind; hooks: ResolveHooks },
): Promise<DataReport> {
  const folder = await resolveModel(model, options.hooks);
  const tokenizer = await loadTokenizer(folder);
  const sizes = await hasConfig(folder)
    ? architectureOf(await readModelConfig(folder)).dimensions
    : { positions: Infinity, vocab: tokenizer.vocabSize };
  const { truncation, marginColumn, assistantOnlyLoss } = settings;
  const encoding = {
    ...{ tokenizer, vocabSize: sizes.vocab, truncation, assistantOnlyLoss },
    maxLength: Math.min(settings.maxLength, sizes.positions),
    ...(marginColumn === undefined ? {} : { marginColumn }),
  };
  const kind = options.as ?? (assistantOnlyLoss ? "completions" : await detectKind(settings.data!));
  return await inspectFiles(settings, kind, encoding);
}

async function hasConfig(folder: string): Promise<boolean> {
  try {
    return (await Deno.stat(join(folder, "config.json"))).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** What a training run on these files would most likely read them as. */
async function detectKind(paths: string): Promise<DataKind> {
  for await (const { value } of readRows(paths.split(",")[0])) {
    const form = detectCompletionForm(value);
    if (form === "labelled") return "labelled";
    return form === undefined ? "pairs" : "completions";
  }
  return "pairs";
}

async function inspectFiles(
  settings: InspectSettings,
  kind: DataKind,
  encoding: DataFileOptions,
): Promise<DataReport> {
  const files = await readRunFiles(settings.data!, kind, { ...encoding, overlong: "drop" });
  return inspectData(kind, files, { maxLength: encoding.maxLength, parts: partsOf(settings, files) });
}
