/**
 * Ranks in one process, without a library: each is a chain of promises.
 *
 * @module
 */
import type { Communicator, ReduceOp, Reducible } from "../../train/mpi/communicator.ts";

type Values = Reducible | Uint8Array<ArrayBuffer>;

const OPS: Readonly<Record<ReduceOp, <Value extends number | bigint>(a: Value, b: Value) => Value>> = {
  sum: (a, b) => (a as number) + (b as number) as typeof a,
  min: (a, b) => (b < a ? b : a),
  max: (a, b) => (b > a ? b : a),
};

/**
 * Makes the communicators of a job.
 *
 * @param size Number of ranks.
 * @returns One for each rank; all must be used, as those of MPI must.
 */
export function simulatedRanks(size: number): Communicator[] {
  const meet = createMeeting(size);
  return Array.from({ length: size }, (_, rank): Communicator => ({
    ...{ rank, size, library: "simulated" },
    barrier: async () => void await meet(rank, new Uint8Array()),
    async allReduce(values, op = "sum") {
      const all = await meet(rank, values);
      const combine = OPS[op];
      for (let index = 0; index < values.length; index++) {
        values[index] = all.map((of) => of[index]).reduce(combine);
      }
    },
    async broadcast(bytes, root) {
      const all = await meet(rank, bytes);
      bytes.set(all[root] as Uint8Array);
    },
    allGather: async (bytes) => await meet(rank, bytes) as Uint8Array<ArrayBuffer>[],
    abort() {
      throw new Error(`rank ${rank} aborted the job`);
    },
    finalize() {},
  }));
}

/** The values of all ranks, once the last of them is there. */
function createMeeting(size: number): (rank: number, values: Values) => Promise<Values[]> {
  let present = Promise.withResolvers<Values[]>();
  let values: Values[] = [];
  let count = 0;
  return (rank, own) => {
    const meeting = present;
    values[rank] = own.slice() as Values;
    if (++count === size) {
      meeting.resolve(values);
      [present, values, count] = [Promise.withResolvers<Values[]>(), [], 0];
    }
    return meeting.promise;
  };
}
