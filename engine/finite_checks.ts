/**
 * Which tensor of recorded work first holds a number that is not finite: every dispatch's operands and results are
 * looked at, in the order of execution.
 * @module
 */
import { finiteCheck, type FiniteCheckConstants } from "../shaders/finite_check.ts";
import type { BufferRange, ObservedDispatch } from "./commands.ts";
import type { Gpu } from "./gpu.ts";
import { empty, release, toHost } from "./tensor.ts";

/** What was looked at. */
export interface CheckedTensor {
  /** The kernel that read or wrote it. */
  readonly kernel: string;
  /** Its name there. */
  readonly binding: string;
  /** Whether the kernel wrote it. */
  readonly isWritten: boolean;
  /** Where it is. */
  readonly range: BufferRange;
  /** Everything that the kernel binds. */
  readonly ranges: readonly BufferRange[];
}

/** A tensor with numbers that are not finite. */
export interface NonFiniteTensor extends CheckedTensor {
  /** How many; in what an earlier, smaller batch left behind a tensor's end none. */
  readonly count: number;
}

/** Looks that are taken at most; 1 MiB of counts. */
const MAX_CHECKS = 2 ** 18;

/**
 * Runs work, graphs included, with checks after and before each dispatch. Slow, and it allocates.
 *
 * @param gpu the device, which is not recording
 * @param body records and submits
 * @param options.storageOf what a range of 16-bit elements holds; f16 by default
 * @returns the first, or undefined where all are finite
 * @throws {MemoryBudgetError} when there is no room for the counts
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, scaledSum } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(3e38, 3e38), { shape: [2] });
 * const found = await findNonFinite(gpu, () => void scaledSum(x, { scale: 1 }));
 * assert.deepEqual([found?.kernel, found?.binding], ["scaled_sum", "y"]);
 * ```
 */
export async function findNonFinite(
  gpu: Gpu,
  body: () => void,
  options: { storageOf?: (range: BufferRange) => FiniteCheckConstants["storage"] | undefined } = {},
): Promise<NonFiniteTensor | undefined> {
  const counts = empty(gpu, [MAX_CHECKS], { owner: "caller", label: "finite checks", category: "buffers" });
  gpu.queue.clear(counts.range);
  const checked: CheckedTensor[] = [];
  const look = (dispatch: ObservedDispatch, isWritten: boolean) => {
    const ranges = Object.values(dispatch.bindings);
    // They write the queries' part of a gradient whose rest the next kernel writes.
    if (isWritten && dispatch.name.endsWith("_backward_q")) return;
    for (const [binding, { type, access }] of Object.entries(dispatch.source.bindings)) {
      if ((access === "read_write") !== isWritten || checked.length === MAX_CHECKS) continue;
      const range = dispatch.bindings[binding];
      // Ids, and numbers that no gradient depends on.
      if (type === "u32" || type === "vec4u" || type === "i32" || binding === "metrics") continue;
      gpu.dispatch(finiteCheck, {
        constants: { storage: type === "vec2u" ? options.storageOf?.(range) ?? "f16" : "f32" },
        bindings: { x: range, counts: counts.range },
        params: { words: Math.floor((range.valueBytes ?? range.sizeBytes) / 4), slot: checked.length },
        workgroups: 1,
      });
      checked.push({ kernel: dispatch.name, binding, isWritten, range, ranges });
    }
  };
  const earlier = gpu.queue.observer;
  const observer = {
    onDispatch(dispatch: ObservedDispatch) {
      gpu.queue.observer = null;
      look(dispatch, false);
      gpu.queue.observer = observer;
      return undefined;
    },
    afterDispatch: (dispatch: ObservedDispatch) => look(dispatch, true),
    onSubmit() {},
  };
  try {
    gpu.queue.observer = observer;
    body();
    gpu.queue.observer = earlier;
    const found = await toHost(counts);
    const index = found.findIndex((count, at) => at < checked.length && count > 0);
    return index < 0 ? undefined : { ...checked[index], count: found[index] };
  } finally {
    gpu.queue.observer = earlier;
    release(counts);
  }
}
