/**
 * What ranks of a job say to each other: the collective operations of the MPI standard that data-parallel training needs.
 * Every rank makes the same calls in the same order.
 * @module
 */

/** Numbers that are reduced in place. */
export type Reducible =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>;

/** How the numbers of all ranks become one, element by element. */
export type ReduceOp = "sum" | "min" | "max";

/**
 * The ranks of a job, seen from one of them. Operations that are started before others have ended run one after the
 * other, in the order of the calls; buffers belong to the communicator until the promise settles.
 */
export interface Communicator {
  /** Of this process, from 0. */
  readonly rank: number;
  /** Number of ranks. */
  readonly size: number;
  /** What carries the messages, with its version. */
  readonly library: string;
  /**
   * Waits until every rank is here.
   *
   * @throws {MpiError} when the library reports an error, or other ranks do not come in time
   */
  barrier(): Promise<void>;
  /**
   * Reduces over ranks, in place; every rank gets the same bits.
   *
   * @param values as many, of the same type, on every rank
   * @param op `sum` by default
   * @throws {MpiError} as {@link Communicator.barrier}
   */
  allReduce(values: Reducible, op?: ReduceOp): Promise<void>;
  /**
   * Overwrites bytes by those of one rank.
   *
   * @param bytes as many on every rank
   * @param root whose
   * @throws {RangeError} when there is no such rank
   * @throws {MpiError} as {@link Communicator.barrier}
   */
  broadcast(bytes: Uint8Array<ArrayBuffer>, root: number): Promise<void>;
  /**
   * Gives every rank what each one has to say.
   *
   * @param bytes of this rank; others may have more or fewer
   * @returns those of each rank, in order
   * @throws {MpiError} as {@link Communicator.barrier}
   */
  allGather(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>[]>;
  /** Ends the job, every rank of it, within about a second; whoever calls it has told why. */
  abort(exitCode: number): void;
  /** Leaves in peace; every rank does, none after an error of its own, which is what {@link Communicator.abort} is for. */
  finalize(): void;
}

/**
 * A communicator without others: what a process has that no launcher started.
 *
 * @returns a communicator of one rank
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const communicator = singleRank();
 * const values = Float32Array.of(1, 2);
 * await communicator.allReduce(values);
 * assert.deepEqual([...values], [1, 2]);
 * ```
 */
export function singleRank(): Communicator {
  return {
    ...{ rank: 0, size: 1, library: "none: one rank" },
    barrier: () => Promise.resolve(),
    allReduce: () => Promise.resolve(),
    broadcast: (_bytes, root) => Promise.resolve(expectRank(root, 1)),
    allGather: (bytes) => Promise.resolve([bytes.slice()]),
    abort: (exitCode) => Deno.exit(exitCode),
    finalize: () => {},
  };
}

/**
 * Refuses a rank that is not there.
 *
 * @param rank as given
 * @param size number of ranks
 * @throws {RangeError} when it is not one of them
 */
export function expectRank(rank: number, size: number): void {
  if (!Number.isInteger(rank) || rank < 0 || rank >= size) {
    throw new RangeError(`Cannot broadcast: expected a rank from 0 to ${size - 1}, found ${rank}`);
  }
}
