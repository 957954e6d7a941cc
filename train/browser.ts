/**
 * What of training needs neither files nor processes, so that it runs in browsers too: models, losses, training,
 * evaluation and decoding, on data that the caller brings.
 * @module
 */
export { CheckpointError, ConfigError, InputError } from "./errors.ts";
export { DataError, type RecordSource } from "./data/errors.ts";
export type { PreferenceRecord, TextForm } from "./data/forms.ts";
export {
  collectPreferences,
  type ColumnOptions,
  type ConversationForm,
  type ConversationRecord,
  type PairColumns,
  type PreferenceData,
  type RecordForm,
  type SkipReason,
} from "./data/records.ts";
export type { Row } from "./data/rows.ts";
export type { MixturePart } from "./data/mixture.ts";
export type { Truncation } from "./data/truncate.ts";
export {
  type CompletionExample,
  encodeCompletions,
  type EncodeCounts,
  type EncodedCompletion,
  type EncodedExample,
  type EncodedPair,
  type EncodeOptions,
  encodePairs,
  encodePrompt,
  type EncodingTokenizer,
  type TextLength,
} from "./data/encode.ts";
export {
  type BatchSize,
  type PackedSequences,
  packPairs,
  type PackPairsOptions,
  packSequences,
} from "./data/batch.ts";
export { createTokenizer, type DecodeOptions, type Tokenizer } from "./data/tokenizer.ts";
export type { FilesPlace, TokenizerFiles } from "./data/tokenizer_files.ts";
export { createStreamDecoder, type StreamDecoder } from "./data/stream_decoder.ts";
export {
  type ChatMessage,
  type ChatTemplate,
  ChatTemplateError,
  createChatTemplate,
  hasGenerationBlocks,
  renderChat,
  type RenderChatOptions,
  type RenderedChat,
  renderGeneration,
} from "./data/chat_template.ts";
export {
  type AssistantSpansOptions,
  encodeChat,
  type EncodedChat,
  renderAssistantSpans,
  renderCompletion,
  type RenderedCompletion,
} from "./data/chat_mask.ts";
export { characterTokenizerFiles } from "./data/character_tokenizer.ts";
export { type ModelConfig, parseModelConfig } from "./models/config.ts";
export type { Gpt2Config } from "./models/gpt2_config.ts";
export type { LlamaConfig, LlamaSizes } from "./models/llama_config.ts";
export type { MistralConfig } from "./models/mistral.ts";
export type { Phi3Config } from "./models/phi3.ts";
export type { Qwen2Config, QwenWindow } from "./models/qwen2.ts";
export type { Qwen3Config } from "./models/qwen3.ts";
export type { RopeScaling, RopeSettings } from "./models/rope_scaling.ts";
export type { TokenIds } from "./models/config_parts.ts";
export type { Architecture, Dimensions, EmbedInputs, LayerInputs } from "./models/architecture.ts";
export {
  batchSequenceLogps,
  batchTokenLogps,
  createModel,
  hiddenStates,
  type Model,
  type ModelOptions,
  nextLogits,
} from "./models/model.ts";
export { type BatchTensors, type HostBatch, hostBatch, uploadBatch } from "./models/batch_tensors.ts";
export { initializeModel } from "./models/initialize.ts";
export { type Adapter, addLora, type LoraOptions, withAdapterOff } from "./adapters/lora.ts";
export type { LoraConfig } from "./adapters/lora_config.ts";
export { PAIR_LOSSES, type PairLossKey } from "./losses/registry.ts";
export { type LossChoice, resolvePairLoss } from "./losses/weighted_sum.ts";
export {
  definePairLoss,
  type PairLoss,
  type PairLossDefinition,
  type PairLossOptionsSchema,
  type ResolvedPairLoss,
} from "./losses/pair_loss.ts";
export { checkPairLoss, type PairSides } from "./losses/check_pair_loss.ts";
export { parseSpoOptions, type SpoOptions, spoPenaltyAt } from "./losses/spo.ts";
export { type SpoStrategy, spoStrategy, type SpoStrategyOptions } from "./solvers/spo_strategy.ts";
export type { Solver, SolverContext, SolverFactory, SolverReport, SolverStep } from "./solvers/solver.ts";
export {
  completionLogps,
  type ReferenceLogps,
  referenceLogps,
  type ReferenceOptions,
  type SideLogps,
} from "./reference.ts";
export {
  type LiveReference,
  liveReference,
  type LiveReferenceOptions,
  type ReferenceSync,
} from "./live_reference.ts";
export { type UnpairedArrays, unpairedObjective, type UnpairedOptions } from "./objectives/kto.ts";
export {
  type ResolvedUnpairedLoss,
  resolveUnpairedLoss,
  type UnpairedLossKey,
  type UnpairedLossOptions,
} from "./losses/unpaired.ts";
export { type MicroBatchState, type Objective, preferenceObjective, sftObjective } from "./objective.ts";
export type { PairArrays, PreferenceOptions } from "./objective.ts";
export {
  createOptimizer,
  DEFAULT_LOSS_SCALE,
  type LossScaleOptions,
  type Optimizer,
  type OptimizerOptions,
} from "./optimizer.ts";
export { DEFAULT_OPTIMIZER } from "./optimizer_defaults.ts";
export { learningRateAt, type LearningRateSchedule } from "./schedule.ts";
export { createMetricsRing, type MetricsRecord, type MetricsRing } from "./metrics.ts";
export type { NamedTensor, RunState, StatePart } from "./checkpoints/run_state.ts";
export {
  type Checkpoints,
  train,
  TrainingError,
  type TrainOptions,
  type TrainState,
  type TrainSummary,
} from "./trainer.ts";
export type { Plan, StepPlan } from "./step_plan.ts";
export type { MicroBatches } from "./micro_batches.ts";
export { evaluatePairs, exactMatch, type ExactTask, type PairEvaluation } from "./evaluate.ts";
export {
  comparePreferences,
  type PreferenceEvaluation,
  type ReferenceComparison,
} from "./evaluation/preferences.ts";
export {
  evaluatePerplexity,
  type PerplexityEvaluation,
  type ScoredText,
  slidingWindows,
  type TextScore,
  type WindowOptions,
} from "./evaluation/perplexity.ts";
export { type Mean, meanOf, type Proportion, proportionOf } from "./evaluation/statistics.ts";
export { generate, type GenerateOptions } from "./generate.ts";
export { type CacheSize, createKeyValueCache, type KeyValueCache } from "./generation/cache.ts";
export { createDecoder, Decoder, type DecodeRow, type PrefillRequest } from "./generation/decoder.ts";
export { type SamplingOptions } from "./generation/sampling.ts";
export { createRandom, type Random, type RandomState } from "./random.ts";
