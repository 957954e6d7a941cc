/**
 * Ranks over MPI.
 * @module
 */
import { type Communicator, expectRank, type Reducible, singleRank } from "./communicator.ts";
import { MpiError, MpiUnavailableError } from "./errors.ts";
import { type Environment, findLaunch, type Launch } from "./launch.ts";
import { type Datatype, type MpiLibrary, openLibrary } from "./library.ts";

/** MPI_THREAD_SERIALIZED: calls come from several threads, one at a time. */
const THREAD_SERIALIZED = 2;

/** MPI_MAX_ERROR_STRING of MPICH, the longer one. */
const ERROR_BYTES = 512;

/** Counts are C ints. */
const MAX_COUNT = 2 ** 31 - 1;

/** How ranks are joined. */
export interface JoinOptions {
  /** Variables that launchers set; this process's own by default. */
  readonly environment?: Environment;
  /** How long an operation waits for other ranks: longer than the longest step of the slowest; 10 minutes by default. */
  readonly timeoutMs?: number;
}

/**
 * Joins the ranks that a launcher (mpirun, mpiexec, srun) started with this process.
 *
 * @param options where launchers leave word, and how long to wait for others
 * @returns the communicator of all ranks; without a launcher, of this one alone, and no library is opened
 * @throws {MpiUnavailableError} when there is no library, it is another than the launcher's, or it knows fewer ranks
 * than the launcher started: each would train alone, and none would say so
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const communicator = joinRanks({ environment: () => undefined });
 * assert.equal(communicator.size, 1); // no launcher started this process
 * communicator.finalize();
 * ```
 */
export function joinRanks(options: JoinOptions = {}): Communicator {
  const { environment = (name) => Deno.env.get(name), timeoutMs = 600_000 } = options;
  const launch = findLaunch(environment);
  if (!launch) return singleRank();
  const library = openLibrary(launch, environment("KEEL_MPI_LIBRARY"));
  initialize(library);
  const [rank, size] = [library.functions.MPI_Comm_rank, library.functions.MPI_Comm_size].map((ask) => {
    const answer = new Int32Array(1);
    expectSuccess(library, { code: ask(library.world, answer), name: "MPI_Comm_rank and MPI_Comm_size" });
    return answer[0];
  });
  if (size !== launch.ranks) {
    library.functions.MPI_Finalize();
    throw new MpiUnavailableError(sizeMismatch(library, { launch, size }));
  }
  return communicate(library, { rank, size, timeoutMs });
}

function sizeMismatch({ version }: MpiLibrary, { launch, size }: { launch: Launch; size: number }): string {
  return `Cannot join the ${launch.ranks} ranks that ${launch.variable} tells of: expected ${version} to know as ` +
    `many, found ${size}; start with the mpirun of that library, or name the launcher's with KEEL_MPI_LIBRARY`;
}

function initialize(library: MpiLibrary): void {
  const { functions, world, errorsReturn, version } = library;
  const level = new Int32Array(1);
  const code = functions.MPI_Init_thread(null, null, THREAD_SERIALIZED, level);
  expectSuccess(library, { code, name: "MPI_Init_thread" });
  expectSuccess(library, {
    code: functions.MPI_Comm_set_errhandler(world, errorsReturn),
    name: "MPI_Comm_set_errhandler",
  });
  if (level[0] < THREAD_SERIALIZED) {
    functions.MPI_Finalize();
    throw new MpiUnavailableError(
      `Cannot use ${version}: expected calls from several threads (MPI_THREAD_SERIALIZED), found level ${
        level[0]
      }`,
    );
  }
}

function expectSuccess(library: MpiLibrary, { code, name }: { code: number; name: string }): void {
  if (code === 0) return;
  const text = new Uint8Array(ERROR_BYTES);
  const length = new Int32Array(1);
  library.functions.MPI_Error_string(code, text, length);
  const reason = new TextDecoder().decode(text.subarray(0, length[0])).trim();
  throw new MpiError(`Cannot finish ${name}: expected success, found "${reason}"`);
}

/** Makes a view of an array's memory and keeps it from being collected until the operation has ended. */
type Hold = (array: Reducible | Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;

/** Runs operations one after the other. */
function createSequence(library: MpiLibrary, { timeoutMs }: { timeoutMs: number }) {
  let last: Promise<unknown> = Promise.resolve();
  const inFlight = new Set<Uint8Array[]>();
  const run = async (name: string, call: (hold: Hold) => Promise<number>) => {
    const held: Uint8Array[] = [];
    inFlight.add(held);
    const hold: Hold = ({ buffer, byteOffset, byteLength }) => {
      // Asking for its buffer moves a small array off the heap, where nothing else moves it.
      const view = new Uint8Array(buffer, byteOffset, byteLength);
      held.push(view);
      return view;
    };
    const code = await withTimeout(call(hold), { name, timeoutMs });
    inFlight.delete(held);
    expectSuccess(library, { code, name });
  };
  return (name: string, call: (hold: Hold) => Promise<number>): Promise<void> => {
    const result = last.then(() => run(name, call));
    // After a failure the rest fails too: ranks that are out of step would mix up their messages.
    last = result;
    result.catch(() => {});
    return result;
  };
}

async function withTimeout<Result>(
  promise: Promise<Result>,
  { name, timeoutMs }: { name: string; timeoutMs: number },
): Promise<Result> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const seconds = timeoutMs / 1000;
      reject(
        new MpiError(`Cannot finish ${name}: expected every rank within ${seconds} s, found some missing`),
      );
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function communicate(
  library: MpiLibrary,
  { rank, size, timeoutMs }: { rank: number; size: number; timeoutMs: number },
): Communicator {
  const { functions, world, inPlace, datatypes, ops, version } = library;
  const inSequence = createSequence(library, { timeoutMs });
  const allReduce: Communicator["allReduce"] = (values, op = "sum") => {
    expectCount("all-reduce", values.length);
    return inSequence("MPI_Allreduce", (hold) => {
      const datatype = datatypes[datatypeOf(values)];
      return functions.MPI_Allreduce(inPlace, hold(values), values.length, datatype, ops[op], world);
    });
  };
  return {
    ...{ rank, size, library: version, allReduce },
    barrier: () => inSequence("MPI_Barrier", () => functions.MPI_Barrier(world)),
    broadcast(bytes, root) {
      expectRank(root, size);
      expectCount("broadcast", bytes.length);
      return inSequence("MPI_Bcast", (hold) => {
        return functions.MPI_Bcast(hold(bytes), bytes.length, datatypes.byte, root, world);
      });
    },
    async allGather(bytes) {
      const counts = new Int32Array(size);
      counts[rank] = bytes.length;
      await allReduce(counts);
      const offsets = counts.map((_, index) =>
        counts.subarray(0, index).reduce((sum, count) => sum + count, 0)
      );
      const total = counts.reduce((sum, count) => sum + count, 0);
      expectCount("gather", total);
      const all = new Uint8Array(total);
      await inSequence("MPI_Allgatherv", (hold) => {
        const places = [hold(all), hold(counts), hold(offsets)] as const;
        return functions.MPI_Allgatherv(
          hold(bytes),
          bytes.length,
          datatypes.byte,
          ...places,
          datatypes.byte,
          world,
        );
      });
      return Array.from(counts, (count, index) => all.slice(offsets[index], offsets[index] + count));
    },
    abort: (exitCode) => void functions.MPI_Abort(world, exitCode),
    finalize: () => expectSuccess(library, { code: functions.MPI_Finalize(), name: "MPI_Finalize" }),
  };
}

function expectCount(action: string, count: number): void {
  if (count > MAX_COUNT) {
    throw new RangeError(`Cannot ${action}: expected at most ${MAX_COUNT} elements at once, found ${count}`);
  }
}

function datatypeOf(values: Reducible): Datatype {
  if (values instanceof Float32Array) return "f32";
  if (values instanceof Float64Array) return "f64";
  return values instanceof Int32Array ? "i32" : "u64";
}
