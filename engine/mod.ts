/**
 * The engine: device, memory, tensors, tape and ops. Knows nothing of text, and uses no Deno API.
 * @module
 */
export {
  type AdapterDescription,
  Gpu,
  GpuFaultError,
  type GpuOptions,
  type GpuStats,
  GpuUnavailableError,
  openGpu,
} from "./gpu.ts";
export {
  Allocation,
  BufferArena,
  BufferPool,
  type CategoryStats,
  MEMORY_CATEGORIES,
  MemoryBudgetError,
  type MemoryCategory,
  type MemoryStats,
} from "./buffers.ts";
export { Scope } from "./scope.ts";
export { type DeviceLimits, openPlanningGpu, type PlanningOptions } from "./planning_gpu.ts";
export { PipelineCache, ShaderError } from "./pipelines.ts";
export type { Pipeline } from "./pipelines.ts";
export {
  type BufferRange,
  CommandQueue,
  type CommandRecorder,
  type Dispatch,
  type EncodedDispatch,
  type Flag,
  type QueueStats,
  type ResolvedDispatch,
  type Scalar,
} from "./queue.ts";
export { Graph, GraphCache, type GraphResult, recordGraph } from "./graph.ts";
export { createInputs, type DeviceTensors, type HostArray, Inputs, uploadAll } from "./inputs.ts";
export type { DispatchObserver, ObservedDispatch } from "./queue.ts";
export { type Shape, ShapeError, sizeOf } from "./shape.ts";
export {
  empty,
  emptyLike,
  fromHost,
  release,
  scope,
  slice,
  type Tensor,
  type TensorOptions,
  type TensorType,
  toHost,
  upload,
  writeHost,
} from "./tensor.ts";
export {
  type GradientSeed,
  type GradientSink,
  type GradientTarget,
  noGrad,
  record,
  type Recording,
  Tape,
} from "./tape.ts";
export {
  checkGradient,
  type GradientCheck,
  GradientError,
  type GradientInput,
  type GradientReport,
} from "./check_gradient.ts";
export { type DType, widen } from "./dtype.ts";
export {
  createParameters,
  type ParameterBlock,
  type ParameterOptions,
  Parameters,
  type ParameterSnapshot,
} from "./parameters.ts";
export { activation, type ActivationOptions } from "./ops/activation.ts";
export { add } from "./ops/add.ts";
export {
  adamw,
  type AdamwOptions,
  type AdamwTensors,
  CLIP_STATE,
  gradNorm,
  type GradNormSlot,
  LOSS_SCALE,
  type LossScale,
} from "./ops/adamw.ts";
export { argmax } from "./ops/argmax.ts";
export { attention, type AttentionOptions } from "./ops/attention.ts";
export { cachedAttention, type CachedAttentionOptions } from "./ops/cached_attention.ts";
export { checkpoint } from "./ops/checkpoint.ts";
export { embedding, type HostTokenIndex, hostTokenIndex, type TokenIndex } from "./ops/embedding.ts";
export {
  gatherRows,
  type HostRowIndex,
  hostRowIndex,
  type RowIndex,
  rowIndex,
  type RowIndexOptions,
} from "./ops/gather_rows.ts";
export { type CachePlace, writeCache } from "./ops/kv_cache.ts";
export { headNorm, type HeadNormOptions } from "./ops/head_norm.ts";
export { layerNorm, type LayerNormOptions } from "./ops/layer_norm.ts";
export { loraLinear, type LoraLinearOptions, type LoraPart } from "./ops/lora_linear.ts";
export { matmul, type MatmulOptions, type ProductEpilogue } from "./ops/matmul.ts";
export {
  type DivergenceName,
  type MicroBatch,
  type NamedPairHead,
  NO_PENALTY,
  type PairHead,
  type PairHeadChoice,
  pairLoss,
  type PairLossInputs,
  type PairLossName,
  type PairLossOptions,
  type PairLossTerm,
  type PenaltyName,
  type SpoPenaltyOptions,
  spoState,
} from "./ops/pair_loss.ts";
export { rmsNorm } from "./ops/rms_norm.ts";
export { rope, ropeTable } from "./ops/rope.ts";
export { type MetricSlot, scaledSum } from "./ops/scaled_sum.ts";
export { axpby, type AxpbyOptions } from "./ops/axpby.ts";
export { chesScores } from "./ops/ches.ts";
export { spoPenalty, type SpoPenaltyInputs } from "./ops/spo_penalty.ts";
export {
  type HostBounds,
  hostBounds,
  type Segments,
  type SequenceBounds,
  sequenceBounds,
} from "./ops/sequence_bounds.ts";
export {
  hostHeadEnds,
  type HostSequenceIndex,
  hostSequenceIndex,
  type SequenceIndex,
  sequenceLogps,
  type SequenceTails,
} from "./ops/sequence_logps.ts";
export {
  pairWeights,
  reportStatistics,
  sequenceStatistics,
  type StatisticsMetric,
  type StatisticsReport,
} from "./ops/sequence_statistics.ts";
export { swiglu } from "./ops/swiglu.ts";
export { swigluLinear } from "./ops/swiglu_linear.ts";
export { hostLabels, tokenLogps, tokenLogpsWithStatistics, type TokenStatistics } from "./ops/token_logps.ts";
export {
  type ElementType,
  type Kernel,
  type KernelSource,
  kernelWgsl,
  type ParameterType,
  type StorageBinding,
} from "../shaders/kernel.ts";
export type { ProductKind } from "../shaders/tile.ts";
export type { ActivationKind } from "../shaders/elementwise.ts";
export type { Storage } from "../shaders/storage.ts";
