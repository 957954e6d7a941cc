/**
 * Everything with text, files or policy in it: models, data, losses, training, evaluation, decoding.
 * @module
 */
export * from "./browser.ts";
export { type AdapterSource, AdapterUnavailableError, ensureAdapter } from "./software_driver.ts";
export type { FileSystem } from "./file_system.ts";
export { readPreferences } from "./data/preference_files.ts";
export { loadTokenizer, saveTokenizer } from "./data/tokenizer_folder.ts";
export { readModelConfig } from "./models/config_file.ts";
export { type LoadedModel, loadModel, saveModel } from "./models/model_files.ts";
export { type BaseOptions, loadModelOrAdapter, type ModelFolders } from "./models/load_model.ts";
export { loadAdapter, saveAdapter } from "./adapters/adapter_files.ts";
export { mergeAdapter, type MergeOptions, type MergeSummary } from "./adapters/merge.ts";
export { cachedReferenceLogps } from "./reference_cache.ts";
export {
  fits,
  formatPlan,
  type MemoryPlan,
  PlanError,
  type PlannedPhase,
  planningOptions,
  planTraining,
  type TrainingSizes,
} from "./plan.ts";
