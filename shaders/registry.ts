/**
 * Every kernel with the constants it is used with: for printing a kernel by name, and for compiling them all.
 * @module
 */
import { adamw } from "./adamw.ts";
import {
  attentionRowsBackwardKv,
  attentionRowsBackwardQ,
  type AttentionRowsConstants,
  attentionRowsForward,
} from "./attention_rows.ts";
import {
  accumulate,
  addForward,
  siluBackward,
  siluForward,
  swigluBackward,
  swigluForward,
} from "./elementwise.ts";
import { embeddingBackward, embeddingForward, gatherRowsBackward, gatherRowsForward } from "./embedding.ts";
import {
  attentionTilesBackwardKv,
  attentionTilesBackwardQ,
  type AttentionTilesConstants,
  attentionTilesForward,
} from "./attention_tiles.ts";
import { type Kernel, kernelWgsl } from "./kernel.ts";
import type { VectorWidth } from "./lib.ts";
import { type MatmulConstants, matmulForward } from "./matmul.ts";
import { moveColumns } from "./pack_columns.ts";
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
import {
  columnSum,
  rmsNormBackward,
  rmsNormForward,
  rmsNormWeightPartial,
  type RowConstants,
} from "./rms_norm.ts";
import { ropeForward } from "./rope.ts";
import type { Storage } from "./storage.ts";
import { CPU_TILE, GPU_TILE, TEXEL_TILE } from "./tile.ts";
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
const ROWS: RowConstants[] = [1, 64].flatMap((lanes) => WIDTHS.map(({ width }) => ({ lanes, width })));
const ACTIVATIONS: Storage[] = ["f32", "f16"];
const GATHER = [
  { width: 1 as const, storage: "f32" as const },
  ...ACTIVATIONS.map((storage) => ({ width: 4 as const, storage })),
];
const ATTENTION_ROWS: AttentionRowsConstants[] = ACTIVATIONS.flatMap((storage) =>
  [4, 8, 16, 32, 64].map((headDim) => ({ headDim, storage, rows: 1 }))
);
const ATTENTION_TILES: AttentionTilesConstants[] = ACTIVATIONS.flatMap((storage) => [
  ...[4, 8, 16, 32, 48, 64, 128].map((headDim) => ({ headDim, storage, lanesX: 8 as const })),
  { headDim: 256, storage, lanesX: 16 as const },
]);
const HEAD: TokenLogpsConstants[] = TILES.flatMap((tile) => BOTH.map((vector) => ({ tile, vector })));
const MATMUL: MatmulConstants[] = (["NN", "NT", "TN"] as const).flatMap((kind) =>
  HEAD.map((constants) => ({ kind, ...constants }))
);
const PAIR_LOSS: PairLossConstants[] = (["dpo", "hinge", "ipo", "simpo"] as const).flatMap((loss) =>
  (["none", "linear", "hinge", "quadratic"] as const).map((penalty) => ({ loss, penalty }))
);

/** All kernels by name. */
export const KERNELS: ReadonlyMap<string, RegisteredKernel> = new Map([
  entry(accumulate, NONE),
  entry(adamw, NONE),
  entry(addForward, NONE),
  entry(argmaxRows, NONE),
  entry(attentionRowsBackwardKv, ATTENTION_ROWS),
  entry(attentionRowsBackwardQ, ATTENTION_ROWS),
  entry(attentionRowsForward, ATTENTION_ROWS),
  entry(attentionTilesBackwardKv, ATTENTION_TILES),
  entry(attentionTilesBackwardQ, ATTENTION_TILES),
  entry(attentionTilesForward, ATTENTION_TILES),
  entry(clipState, NONE),
  entry(columnSum, WIDTHS),
  entry(embeddingBackward, WIDTHS),
  entry(embeddingForward, WIDTHS),
  entry(gatherRowsBackward, GATHER),
  entry(gatherRowsForward, GATHER),
  entry(matmulForward, MATMUL),
  entry(moveColumns, [{ into: "packed" }, { into: "part" }]),
  entry(pairLoss, PAIR_LOSS),
  entry(rmsNormBackward, ROWS),
  entry(rmsNormForward, ROWS),
  entry(rmsNormWeightPartial, WIDTHS),
  entry(ropeForward, WIDTHS),
  entry(scaleByScalar, BOTH.map((saved) => ({ saved }))),
  entry(scaledSum, NONE),
  entry(segmentSum, NONE),
  entry(segmentSumBackward, NONE),
  entry(siluBackward, NONE),
  entry(siluForward, NONE),
  entry(squareSumPartial, [{ lanes: 8 }, { lanes: 64 }]),
  entry(swigluBackward, NONE),
  entry(swigluForward, NONE),
  entry(tokenLogpsBackward, HEAD),
  entry(tokenLogpsCombine, NONE),
  entry(tokenLogpsPartial, HEAD),
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
 * if (!source.includes("y[i] = a[i] + b[i];")) throw new Error(source);
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
