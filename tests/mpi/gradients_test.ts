import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { createParameters } from "../../engine/parameters.ts";
import { writeHost } from "../../engine/tensor.ts";
import { singleRank } from "../../train/mpi/communicator.ts";
import { allReduceGradients } from "../../train/mpi/gradients.ts";
import { shardStep } from "../../train/mpi/shards.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { simulatedRanks } from "./simulated_ranks.ts";
import { type ShardedRun, trainSharded } from "./train_sharded.ts";

/** Few: 20 steps are run by real processes, in mpi_test.ts. */
const STEPS = 6;

/** Parameters of a rank, whose gradients are its rank times ten plus the element's place. */
function rankParameters(gpu: Gpu, rank: number) {
  const parameters = createParameters(gpu, new Map([["weight", [3, 5]], ["bias", [3]]]), { trainable: true });
  writeHost(
    parameters.get("weight").grad!,
    Float32Array.from({ length: 15 }, (_, place) => 10 * rank + place),
  );
  writeHost(parameters.get("bias").grad!, Float32Array.of(rank, rank, rank));
  return parameters;
}

gpuTest("gradients of all ranks are summed in place, whatever the bucket", async (gpu) => {
  for (const bucketBytes of [undefined, 8, 1024]) {
    const ranks = simulatedRanks(3);
    const parameters = ranks.map(({ rank }) => rankParameters(gpu, rank));
    const readbacks = gpu.queue.stats.readbacks;
    const exchanges = await Promise.all(
      ranks.map((rank) => allReduceGradients(parameters[rank.rank], rank, { bucketBytes })),
    );
    const buckets = exchanges.reduce((sum, exchange) => sum + exchange.buckets, 0);
    assert.equal(gpu.queue.stats.readbacks - readbacks, buckets);
    if (bucketBytes === undefined) assert.equal(buckets, 3, "one readback a rank for one block");
    if (bucketBytes === 8) assert.ok(buckets > 3 * 9, `${buckets} buckets`);
    for (const of of parameters) {
      const expected = Array.from({ length: 15 }, (_, place) => 10 * (0 + 1 + 2) + 3 * place);
      assert.deepEqual([...await of.readGradient("weight")], expected);
      assert.deepEqual([...await of.readGradient("bias")], [3, 3, 3]);
      of[Symbol.dispose]();
    }
  }
});

gpuTest("one rank exchanges nothing, and frozen parameters are refused", async (gpu) => {
  using parameters = rankParameters(gpu, 1);
  assert.deepEqual(await allReduceGradients(parameters, singleRank()), { sizeBytes: 0, buckets: 0 });
  using frozen = createParameters(gpu, new Map([["bias", [3]]]), { trainable: false });
  await assert.rejects(allReduceGradients(frozen, singleRank()), /expected trained parameters/);
});

for (const kind of ["sft", "dpo"] as const) {
  gpuTest(`${kind}: 2 and 4 ranks train as one rank with the whole batch`, async (gpu) => {
    const run = (size: number): Promise<ShardedRun[]> =>
      Promise.all(simulatedRanks(size).map((rank) => trainSharded(gpu, rank, { kind, steps: STEPS })));
    const [alone] = await run(1);
    assert.notEqual(alone.losses[0], alone.losses[STEPS - 1]);
    for (const size of [2, 4]) {
      const [first, ...others] = await run(size);
      // Sums of other order; Adam's first steps magnify the rounding of gradients near zero.
      for (const name of ["losses", "gradNorms", "weights"] as const) {
        assertClose(first[name], alone[name], { what: `${size} ranks: ${name}`, rtol: 1e-4, atol: 1e-5 });
        for (const other of others) assert.deepEqual(other[name], first[name], "the same bits on every rank");
      }
    }
  });
}

Deno.test("ranks share every micro-batch, and one that does not divide is refused", () => {
  const batch = Uint32Array.from({ length: 8 }, (_, item) => item);
  const step = { batch, microBatches: [batch.subarray(0, 4), batch.subarray(4)], labels: 9 };
  const shards = [0, 1].map((rank) => shardStep(step, { rank, size: 2 }));
  assert.deepEqual(shards.map(({ microBatches }) => microBatches.map((items) => [...items])), [
    [[0, 1], [4, 5]],
    [[2, 3], [6, 7]],
  ]);
  for (const shard of shards) assert.deepEqual([shard.batch, shard.labels], [batch, 9]);
  assert.throws(() => shardStep(step, { rank: 0, size: 3 }), /divides by 3 in each micro-batch .* found 4$/);
});
