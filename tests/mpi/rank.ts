/**
 * What a rank of a test's job does: `mpirun -n 3 deno run -A tests/mpi/rank.ts collectives`.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { joinRanks } from "../../train/mpi/mpi.ts";
import { agree } from "../../train/mpi/agreement.ts";
import type { Communicator } from "../../train/mpi/communicator.ts";
import { runRank } from "../../train/mpi/job.ts";

const PARTS: Readonly<Record<string, (communicator: Communicator) => Promise<void>>> = {
  join: () => Promise.resolve(),

  async collectives(communicator) {
    const { rank, size, library } = communicator;
    const floats = Float32Array.of(rank, 0.5, -rank);
    const doubles = Float64Array.of(0.1 * (rank + 1));
    const integers = Int32Array.of(-rank, rank);
    const large = BigUint64Array.of(2n ** 53n * BigInt(rank));
    const word = new TextEncoder().encode(String(rank).repeat(3 * rank));
    const sent = Uint8Array.of(rank, 7);
    // Started together: they run in this order.
    const [gathered] = await Promise.all([
      communicator.allGather(word),
      communicator.allReduce(floats.subarray(1)),
      communicator.allReduce(doubles, "sum"),
      communicator.allReduce(integers, "min"),
      communicator.allReduce(large, "max"),
      communicator.broadcast(sent, size - 1),
      communicator.barrier(),
    ]);
    console.log(JSON.stringify({
      ...{ rank, size, library, floats: [...floats], doubles: [...doubles], integers: [...integers] },
      ...{
        large: String(large[0]),
        sent: [...sent],
        gathered: gathered.map((bytes) => new TextDecoder().decode(bytes)),
      },
    }));
  },

  async disagree(communicator) {
    const beta = communicator.rank === 2 ? 0.2 : 0.1;
    await agree(communicator, { keelVersion: "0.1.0", settings: { beta, seed: 0 } });
  },

  async fails({ rank, barrier }) {
    if (rank === 1) throw new RangeError("Cannot count: expected one, found two");
    await barrier();
  },

  async dies({ rank, barrier }) {
    await barrier();
    if (rank === 1) Deno.kill(Deno.pid, "SIGKILL");
    await barrier();
  },

  async hangs({ rank, barrier }) {
    await barrier();
    if (rank === 1) await new Promise((resolve) => setTimeout(resolve, 60_000));
    await barrier();
  },

  async train(communicator) {
    // Only this part needs a device.
    const { ensureAdapter } = await import("../../train/software_driver.ts");
    const { openGpu } = await import("../../engine/gpu.ts");
    const { trainSharded } = await import("./train_sharded.ts");
    await ensureAdapter();
    using gpu = await openGpu();
    const { losses, gradNorms, weights } = await trainSharded(gpu, communicator, { kind: "dpo", steps: 20 });
    // A line of more than 4 KiB would be mixed with those of other ranks.
    const sha256 = createHash("sha256").update(new Uint8Array(weights.buffer)).digest("hex");
    console.log(JSON.stringify({ losses: [...losses], gradNorms: [...gradNorms], sha256 }));
  },
};

if (import.meta.main) {
  const [part] = Deno.args;
  // Ranks leave MPI_Init together, however far apart they were started.
  const communicator = joinRanks({ timeoutMs: part === "hangs" ? 2000 : 60_000 });
  Deno.exit(await runRank(communicator, PARTS[part], console.error));
}
