/**
 * Who is told of a run's metrics as they are logged: metrics.jsonl, and whatever else was asked for.
 * @module
 */
import type { MetricsRecord } from "./metrics.ts";

/** Takes a run's metrics, one record after another. */
export interface MetricsSink extends Disposable {
  /**
   * Takes a record, which has left the process when this returns: a run that is killed keeps it.
   *
   * @param record as metrics.jsonl has it: `phase`, `global_step` and the numbers of that step
   * @throws {InputError} naming the file that could not be written
   */
  append(record: MetricsRecord): void;
  /**
   * Waits until what was taken is on the disk: a checkpoint must not outlive the records that it counts on.
   *
   * @throws {InputError} naming the file that could not be written
   */
  flush(): void;
  /** Ends it; a second call does nothing. */
  close(): void;
}

/**
 * Several sinks as one. The first one that fails ends the run, so those before it have a record that it has not.
 *
 * @param sinks in the order in which they are told
 * @returns the sink; closing it closes them all
 * @example
 * ```ts
 * const told: string[] = [];
 * const sink = (name: string): MetricsSink => ({
 *   append: ({ global_step }) => void told.push(`${name} ${global_step}`),
 *   flush() {},
 *   close: () => void told.push(`${name} closed`),
 *   [Symbol.dispose]() {},
 * });
 * {
 *   using both = combineSinks([sink("a"), sink("b")]);
 *   both.append({ global_step: 10 });
 * }
 * if (told.join() !== "a 10,b 10,b closed,a closed") throw new Error("each is told, then each is closed");
 * ```
 */
export function combineSinks(sinks: readonly MetricsSink[]): MetricsSink {
  const close = () => {
    using stack = new DisposableStack();
    for (const sink of sinks) stack.defer(() => sink.close());
  };
  return {
    append: (record) => sinks.forEach((sink) => sink.append(record)),
    flush: () => sinks.forEach((sink) => sink.flush()),
    close,
    [Symbol.dispose]: close,
  };
}
