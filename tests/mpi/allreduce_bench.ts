/**
 * Time of an all-reduce of f32 against its size, from the slowest rank, as a row for each size:
 *
 *     mpirun --bind-to none -n 2 deno run -A tests/mpi/allreduce_bench.ts
 *
 * @module
 */
import { formatBytes } from "../../train/format_bytes.ts";
import type { Communicator } from "../../train/mpi/communicator.ts";
import { runRank } from "../../train/mpi/job.ts";
import { joinRanks } from "../../train/mpi/mpi.ts";
import { formatMarkdownTable } from "../../train/table.ts";

/** From a LoRA adapter of rank 8 to a bucket of full fine-tuning. */
const SIZES_BYTES = [2 ** 10, 2 ** 16, 2 ** 20, 2 ** 22, 2 ** 24, 2 ** 26];

/** Rounds of a size; the first is left out, which touches the memory for the first time. */
const ROUNDS = 11;

async function measure(communicator: Communicator): Promise<void> {
  const rows: string[][] = [];
  for (const sizeBytes of SIZES_BYTES) {
    const milliseconds = (await timeRounds(communicator, new Float32Array(sizeBytes / 4))).toSorted((a, b) =>
      a - b
    );
    const median = milliseconds[Math.floor(milliseconds.length / 2)];
    const rate = sizeBytes / median / 1e6;
    rows.push([
      formatBytes(sizeBytes),
      ...[milliseconds[0], median, milliseconds.at(-1)!].map((ms) => `${ms.toFixed(2)} ms`),
      `${rate.toFixed(2)} GB/s`,
    ]);
  }
  if (communicator.rank !== 0) return;
  const load = Deno.loadavg()[0].toFixed(2);
  console.log(`${communicator.size} ranks, ${communicator.library}, load average ${load} at the end\n`);
  console.log(formatMarkdownTable(["size", "fastest", "median", "slowest", "size / median"], rows));
}

/** Of each round, the time of the slowest rank. */
async function timeRounds(communicator: Communicator, values: Float32Array<ArrayBuffer>): Promise<number[]> {
  const elapsed = new Float64Array(ROUNDS);
  for (let round = 0; round < ROUNDS; round++) {
    await communicator.barrier();
    const start = performance.now();
    await communicator.allReduce(values);
    elapsed[round] = performance.now() - start;
  }
  await communicator.allReduce(elapsed, "max");
  return [...elapsed.subarray(1)];
}

if (import.meta.main) Deno.exit(await runRank(joinRanks(), measure, console.error));
