/**
 * Every kernel with the constants it is used with: for printing a kernel by name, and for compiling them all.
 * @module
 */
import { adamw } from "./adamw.ts";
import { axpby } from "./axpby.ts";
import { chesScores } from "./ches.ts";
import { spoPenalty } from "./lower_level.ts";
import {
  attentionRowsBackwardKv,
  attentionRowsBackwardQ,
  type AttentionRowsConstants,
  attentionRowsForward,
} from "./attention_rows.ts";
import {
  cachedAttentionBlocks,
  cachedAttentionCombine,
  cachedAttentionLanes,
  type CachedAttentionShape,
} from "./cached_attention.ts";
import { columnSum, columnSumPartial } from "./column_sum.ts";
import {
  accumulate,
  type AccumulateConstants,
  activationBackward,
  type ActivationConstants,
  activationForward,
  addForward,
  type ElementwiseConstants,
} from "./elementwise.ts";
import {
  embeddingBackward,
  embeddingForward,
  type GatherConstants,
  gatherRowsBackward,
  gatherRowsForward,
} from "./embedding.ts";
import {
  attentionTilesBackwardKv,
  attentionTilesBackwardQ,
  type AttentionTilesConstants,
  attentionTilesForward,
} from "./attention_tiles.ts";
import { finiteCheck } from "./finite_check.ts";
import { headNormBackward, headNormForward, headNormGainPartial } from "./head_norm.ts";
import { type Kernel, kernelWgsl } from "./kernel.ts";
import { ktoLoss } from "./kto_loss.ts";
import { kvCacheWrite } from "./kv_cache.ts";
import { layerNormBackward, layerNormForward, layerNormGainPartial } from "./layer_norm.ts";
import type { VectorWidth } from "./lib.ts";
import { matmulPair, type MatmulPairConstants } from "./matmul_pair.ts";
import { type MatmulConstants, matmulForward, matmulRows, type MatmulRowsConstants } from "./matmul.ts";
import { loraCollect, loraSpread } from "./lora.ts";
import { mix } from "./mix.ts";
import { type DivergenceName, DIVERGENCES } from "./divergence.ts";
import { HEADS, type PairLossName } from "./pair_heads.ts";
import { pairLoss, type PairLossConstants } from "./pair_loss.ts";
import {
  argmaxRows,
  clipState,
  scaleByScalar,
  scaledSum,
  segmentSum,
  segmentSumBackward,
  squareSumPartial,
} from "./reduce.ts";
import { rmsNormBackward, rmsNormForward, rmsNormWeightPartial } from "./rms_norm.ts";
import type { RowConstants } from "./rows.ts";
import type { InputMemory, OperandConstants } from "./operand.ts";
import { ropeInPlace } from "./rope.ts";
import {
  pairWeights,
  sequenceStatistics,
  STATISTICS_METRICS,
  statisticsMetrics,
} from "./sequence_statistics.ts";
import { swigluBackward, swigluForward } from "./swiglu.ts";
import { type SwigluLinearConstants, swigluLinearForward } from "./swiglu_linear.ts";
import { CPU_TILE, GPU_TILE, LARGE_TILE, SMALL_TILE, TEXEL_TILE } from "./tile.ts";
import {
  tokenLogpsBackward,
  tokenLogpsCombine,
  type TokenLogpsConstants,
  tokenLogpsPartial,
} from "./token_logps.ts";

/** One kernel family and members of it; the type of its constants is known only where it was registered. */
export interface RegisteredKernel {
  readonly kernel: Kernel<unknown>;
  /** Constants of every member that ops ask for; of attention, for common head sizes. */
  readonly constants: readonly unknown[];
}

const TILES = [CPU_TILE, TEXEL_TILE, GPU_TILE];
const BOTH = [true, false];
const NONE: Record<string, never>[] = [{}];
const WIDTHS = ([1, 4] as VectorWidth[]).map((width) => ({ width }));
/** Adapters' ways to read inputs. */
const MEMORIES: InputMemory[] = ["buffer", "texels"];
const HALVES = ["f32", "f16"] as const;
const ELEMENTWISE: ElementwiseConstants[] = MEMORIES.flatMap((memory) =>
  HALVES.map((storage) => ({ storage, memory }))
);
/** Gradients of activations meet as they are stored; those of parameters are f32. */
const ACCUMULATE: AccumulateConstants[] = ELEMENTWISE.flatMap((constants) =>
  HALVES.map((total) => ({ ...constants, total }))
);
const ACTIVATIONS: ActivationConstants[] = ELEMENTWISE.flatMap((constants) =>
  (["silu", "gelu_tanh"] as const).flatMap((kind) =>
    (["none", "elements", "quads"] as const).map((bias) => ({ ...constants, kind, bias }))
  )
);
const OPERANDS: OperandConstants[] = ELEMENTWISE.flatMap((constants) =>
  (constants.storage === "f16" ? [4] as const : [1, 4] as const).map((width) => ({ ...constants, width }))
);
const ROWS: RowConstants[] = OPERANDS.flatMap((constants) =>
  [[1, 0], [64, 0], [64, 8], [64, 32]].map(([lanes, subgroup]) => ({ ...constants, lanes, subgroup }))
);
/** Rows in the storages that activations have. */
const PLAIN_ROWS = ([[1, "f32"], [4, "f32"], [4, "f16"]] as const)
  .map(([width, storage]) => ({ width, storage }));
const ATTENTION_ROWS: AttentionRowsConstants[] = HALVES.flatMap((storage) =>
  [4, 8, 16, 32, 64].map((headDim) => ({ headDim, storage, rows: 1 }))
);
const ATTENTION_TILES: AttentionTilesConstants[] = HALVES.flatMap((storage) => [
  ...[4, 8, 16, 32, 48, 64, 128].map((headDim) => ({ headDim, storage, lanesX: 8 as const })),
  { headDim: 256, storage, lanesX: 16 as const },
]);
const CACHED: CachedAttentionShape[] = HALVES.flatMap((storage) =>
  [4, 8, 16, 32, 48, 64, 128, 256].map((headDim) => ({ headDim, storage }))
);
/** Hidden states and head: f32, f16 training, and a frozen bfloat16 head under either. */
const HEAD: TokenLogpsConstants[] = TILES.flatMap((tile) => [
  { tile, vector: false, storage: { a: "f32", b: "f32" } },
  ...([["f32", "f32"], ["f16", "f16"], ["f32", "bf16"], ["f16", "bf16"]] as const).map(([a, b]) => ({
    ...{ tile, vector: true },
    storage: { a, b },
  })),
]);
const F32 = { a: "f32", b: "f32", c: "f32" } as const;
/** Operands and result of a half-precision layer: forward, with a frozen bfloat16 weight, and a weight's gradient. */
const HALF = [
  { a: "f16", b: "f16", c: "f16" },
  { a: "f16", b: "bf16", c: "f16" },
  { a: "f16", b: "f16", c: "f32" },
] as const;
const MATMUL: MatmulConstants[] = (["NN", "NT", "TN"] as const).flatMap((kind) =>
  [...TILES, LARGE_TILE, SMALL_TILE].flatMap((tile) => [
    ...BOTH.map((vector) => ({ kind, tile, vector, storage: F32 })),
    ...HALF.map((storage) => ({ kind, tile, vector: true, storage })),
  ])
);
/** A layer with an adapter in f32, and its input's gradient; the weight is stored either way. */
const MATMUL_PAIR: MatmulPairConstants[] = TILES.flatMap((tile) =>
  (["NN", "NT"] as const).flatMap((kind) =>
    (["NN", "NT"] as const).flatMap((kind2) => {
      const second = { kind: kind2, a: "f32", b: "f32" } as const;
      return [
        ...BOTH.map((vector) => ({ kind, tile, vector, storage: F32, second })),
        ...(kind === kind2 ? HALF.slice(0, 2) : [])
          .map((storage) => ({ kind, tile, vector: true, storage, second })),
      ];
    })
  )
);
const GATHER: GatherConstants[] = [
  { width: 1, table: "f32", y: "f32" },
  ...(["f32", "f16", "bf16"] as const).flatMap((table) =>
    (["f32", "f16"] as const).map((y) => ({ width: 4, table, y }) as const)
  ),
];
const SWIGLU_LINEAR: SwigluLinearConstants[] = TILES.flatMap((tile) =>
  BOTH.flatMap((saved) => [
    ...BOTH.map((vector) => ({ tile, vector, storage: F32, saved })),
    ...HALF.slice(0, 2).map((storage) => ({ tile, vector: true, storage, saved })),
  ])
);
const MATMUL_ROWS: MatmulRowsConstants[] = [1, 4].flatMap((rows) =>
  [{ lanes: 8, texels: true }, { lanes: 64, texels: false }].flatMap((layout) => [
    ...BOTH.map((vector) => ({ rows, vector, storage: F32, ...layout })),
    ...HALF.slice(0, 2).map((storage) => ({ rows, vector: true, storage, ...layout })),
  ])
);
/** Each head, each penalty, each divergence, and a sum of terms with everything that a batch may bring. */
const PAIR_LOSS: PairLossConstants[] = [
  ...(Object.keys(HEADS) as PairLossName[]).map((loss) => [{ loss }]),
  ...(Object.keys(DIVERGENCES) as DivergenceName[]).map((
    divergence,
  ) => [{ loss: "dpo" as const, divergence }]),
].map((terms): PairLossConstants => ({ terms, penalty: "none", extras: [] })).concat(
  (["linear", "hinge", "quadratic"] as const).map((penalty) => ({
    terms: [{ loss: "dpo", referenceFree: true }],
    penalty,
    extras: [],
  })),
  {
    terms: [{ loss: "rdpo" }, { loss: "orpo" }, { loss: "aot" }, { loss: "alphadpo" }],
    penalty: "linear",
    extras: ["margins", "weights", "prompt_logps"],
  },
  {
    terms: [{ loss: "ipo" }, { loss: "sft" }],
    penalty: "linear",
    extras: ["plain_logps", "plain_reference"],
  },
);

/** All kernels by name. */
export const KERNELS: ReadonlyMap<string, RegisteredKernel> = new Map([
  entry(accumulate, ACCUMULATE),
  entry(activationBackward, ACTIVATIONS),
  entry(activationForward, ACTIVATIONS),
  entry(adamw, BOTH.map((copy) => ({ copy }))),
  entry(addForward, ELEMENTWISE),
  entry(argmaxRows, NONE),
  entry(attentionRowsBackwardKv, ATTENTION_ROWS),
  entry(attentionRowsBackwardQ, ATTENTION_ROWS),
  entry(attentionRowsForward, ATTENTION_ROWS),
  entry(attentionTilesBackwardKv, ATTENTION_TILES),
  entry(attentionTilesBackwardQ, ATTENTION_TILES),
  entry(attentionTilesForward, ATTENTION_TILES),
  entry(axpby, (["one", "norm", "inverse norm"] as const).map((times) => ({ times }))),
  entry(chesScores, NONE),
  entry(cachedAttentionBlocks, CACHED.flatMap((shape) => BOTH.map((split) => ({ ...shape, split })))),
  entry(cachedAttentionCombine, CACHED),
  entry(
    cachedAttentionLanes,
    CACHED.filter(({ headDim }) => headDim <= 128).flatMap((shape) =>
      [1, 2].map((heads) => ({ ...shape, heads }))
    ),
  ),
  entry(clipState, BOTH.map((scaled) => ({ scaled }))),
  entry(columnSum, WIDTHS),
  entry(columnSumPartial, PLAIN_ROWS),
  entry(
    embeddingBackward,
    GATHER.filter(({ table }) => table === "f32").map(({ width, y }) => ({ width, y })),
  ),
  entry(embeddingForward, GATHER),
  entry(finiteCheck, (["f32", "f16", "bf16"] as const).map((storage) => ({ storage }))),
  entry(gatherRowsBackward, PLAIN_ROWS),
  entry(gatherRowsForward, PLAIN_ROWS),
  entry(kvCacheWrite, HALVES.map((storage) => ({ storage }))),
  entry(headNormBackward, ROWS),
  entry(headNormForward, ROWS),
  entry(headNormGainPartial, OPERANDS),
  entry(ktoLoss, BOTH.map((kl) => ({ kl }))),
  entry(layerNormBackward, ROWS),
  entry(layerNormForward, ROWS),
  entry(layerNormGainPartial, OPERANDS),
  entry(loraCollect, NONE),
  entry(loraSpread, NONE),
  entry(matmulForward, MATMUL),
  entry(matmulPair, MATMUL_PAIR),
  entry(matmulRows, MATMUL_ROWS),
  entry(mix, BOTH.map((copy) => ({ copy }))),
  entry(pairLoss, PAIR_LOSS),
  entry(pairWeights, NONE),
  entry(rmsNormBackward, ROWS),
  entry(rmsNormForward, ROWS),
  entry(rmsNormWeightPartial, OPERANDS),
  entry(ropeInPlace, OPERANDS),
  entry(scaleByScalar, BOTH.map((saved) => ({ saved }))),
  entry(scaledSum, BOTH.map((weighted) => ({ weighted }))),
  entry(spoPenalty, (["none", "linear", "hinge", "quadratic"] as const).map((penalty) => ({ penalty }))),
  entry(segmentSum, BOTH.map((tails) => ({ tails }))),
  entry(segmentSumBackward, BOTH.map((tails) => ({ tails }))),
  entry(sequenceStatistics, NONE),
  entry(squareSumPartial, [{ lanes: 8 }, { lanes: 64 }]),
  entry(
    statisticsMetrics,
    Object.entries(STATISTICS_METRICS).map(([of, metrics]) => ({ metrics, labelled: of === "answers" })),
  ),
  entry(swigluBackward, OPERANDS),
  entry(swigluForward, OPERANDS),
  entry(swigluLinearForward, SWIGLU_LINEAR),
  entry(tokenLogpsBackward, HEAD),
  entry(tokenLogpsCombine, BOTH.map((statistics) => ({ statistics }))),
  entry(tokenLogpsPartial, BOTH.flatMap((statistics) => HEAD.map((head) => ({ ...head, statistics })))),
]);

/**
 * The complete WGSL of a kernel by name, one source for each set of constants.
 *
 * @param name a kernel's name, such as `rms_norm_forward`
 * @returns the sources, in the order of the registered constants
 * @throws {ReferenceError} when there is no such kernel
 * @example
 * ```ts
 * import { kernelSources } from "./registry.ts";
 * const [source] = kernelSources("add_forward");
 * if (!source.includes("y[i] = y_i;")) throw new Error(source);
 * ```
 */
export function kernelSources(name: string): string[] {
  const registered = KERNELS.get(name);
  if (!registered) {
    throw new ReferenceError(
      `Cannot print a kernel: expected one of ${[...KERNELS.keys()].join(", ")}, found ${name}`,
    );
  }
  return registered.constants.map((constants) => kernelWgsl(registered.kernel, constants));
}

function entry<Constants>(
  kernel: Kernel<Constants>,
  constants: readonly Constants[],
): [string, RegisteredKernel] {
  // Sound because `constants` are this kernel's: the pair is made here and nowhere else.
  return [kernel.name, { kernel: kernel as Kernel<unknown>, constants }];
}
