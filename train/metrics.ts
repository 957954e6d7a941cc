/**
 * Metrics of a run: numbers stay on the GPU in a ring, and come back every few steps with one await.
 * @module
 */
import { empty, release, type Tensor, toHost } from "../engine/tensor.ts";
import type { Gpu } from "../engine/gpu.ts";
import type { GradNormSlot } from "../engine/ops/adamw.ts";
import { GRAD_NORM_METRIC, LOSS_SCALE_METRIC, METRICS_STRIDE } from "../shaders/pair_loss.ts";

/** One logged object, in TRL's names; `runs/<name>/metrics.jsonl` holds one a line. */
export type MetricsRecord = Readonly<Record<string, number | string>>;

/** A window of steps on the GPU. */
export interface MetricsRing extends Disposable {
  /** `[rows, METRICS_STRIDE]`. */
  readonly tensor: Tensor;
  /** Steps between two reads. */
  readonly rows: number;
  /** Where a step's gradient norm goes, and the loss scale. */
  gradNorm(row: number): GradNormSlot;
  /**
   * Reads the first rows back; the one place where training waits for the GPU.
   *
   * @param count steps since the last read
   * @param names of the numbers in a row
   * @returns a record a step, with grad_norm; where the loss is scaled also with loss_scale (after the step) and
   * skipped_steps (since the start)
   */
  read(count: number, names: readonly string[]): Promise<Record<string, number>[]>;
}

/**
 * Makes a ring, all zero.
 *
 * @param gpu the device
 * @param rows steps between two reads
 * @param options.isScaled whether the run scales its loss
 * @returns the ring; dispose it when done
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { writeHost } from "../engine/tensor.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using ring = createMetricsRing(gpu, 4);
 * const values = new Float32Array(ring.tensor.shape[1] * 4);
 * values[0] = 0.5;
 * writeHost(ring.tensor, values);
 * assert.deepEqual(await ring.read(1, ["loss"]), [{ loss: 0.5, grad_norm: 0 }]);
 * ```
 */
export function createMetricsRing(
  gpu: Gpu,
  rows: number,
  options: { isScaled?: boolean } = {},
): MetricsRing {
  const tensor = empty(gpu, [rows, METRICS_STRIDE], {
    owner: "caller",
    label: "metrics",
    category: "buffers",
  });
  gpu.queue.clear(tensor.range);
  return {
    tensor,
    rows,
    gradNorm: (row) => ({
      metrics: tensor,
      index: row * METRICS_STRIDE + GRAD_NORM_METRIC,
      lossScaleIndex: row * METRICS_STRIDE + LOSS_SCALE_METRIC,
      accumulate: false,
    }),
    async read(count, names) {
      const values = await toHost(tensor);
      return Array.from({ length: count }, (_, row) => {
        const numbers = values.subarray(row * METRICS_STRIDE, (row + 1) * METRICS_STRIDE);
        return Object.fromEntries([
          ...names.map((name, index) => [name, numbers[index]]),
          ["grad_norm", numbers[GRAD_NORM_METRIC]],
          ...(options.isScaled
            ? [["loss_scale", numbers[LOSS_SCALE_METRIC]], ["skipped_steps", numbers[LOSS_SCALE_METRIC + 1]]]
            : []),
        ]);
      });
    },
    [Symbol.dispose]: () => release(tensor),
  };
}

/**
 * Mean of each number over records of equal keys; of the loss scale and the count of skipped steps the last.
 *
 * @param records of one step each
 * @param skippedBefore steps that were skipped before these; what a skipped step shows of an overflow is left out
 */
export function meanRecord(
  records: readonly Record<string, number>[],
  skippedBefore = 0,
): Record<string, number> {
  const good = records.filter((_, index) => !wasSkipped(records, index, skippedBefore));
  const counted = good.length > 0 ? good : records;
  return Object.fromEntries(
    Object.keys(records[0]).map((name) => [
      name,
      name === "loss_scale" || name === "skipped_steps"
        ? records[records.length - 1][name]
        : counted.reduce((total, record) => total + record[name], 0) / counted.length,
    ]),
  );
}

/** Whether the step of a record was skipped, its gradient not being finite; never where the loss is not scaled. */
export function wasSkipped(
  records: readonly Record<string, number>[],
  index: number,
  skippedBefore: number,
): boolean {
  return records[index].skipped_steps > (index === 0 ? skippedBefore : records[index - 1].skipped_steps);
}
