/**
 * What a program that trains inside itself may rely on: runs that do not know of one another, an end when it says so,
 * and nothing left behind.
 *
 * @module
 */
import assert from "node:assert/strict";
import { openGpu } from "../../engine/mod.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { trainTenSteps, trainTiny } from "./train_ten_steps.ts";

const SEEDS = [1, 2];

Deno.test("runs at the same time, on one device or on devices of their own, are each what it is alone", async () => {
  await ensureAdapter();
  using gpu = await openGpu();
  const order: number[] = [];
  const lossesOf = async (seed: number) => {
    const losses: number[] = [];
    await trainTiny(gpu, { seed, onLoss: (loss) => void (losses.push(loss), order.push(seed)) });
    return losses;
  };
  const alone = [await lossesOf(SEEDS[0]), await lossesOf(SEEDS[1])];
  assert.notDeepEqual(alone[0], alone[1]);
  order.length = 0;
  assert.deepEqual(await Promise.all(SEEDS.map(lossesOf)), alone);
  assert(order.indexOf(SEEDS[1]) < order.lastIndexOf(SEEDS[0]), "their steps alternate");
  assert.equal(gpu.stats().memory.usedBytes, 0);

  const apart = await Promise.all(SEEDS.map((seed) => trainTenSteps({ seed })));
  assert.deepEqual(apart.map(({ losses }) => losses), alone);
});

Deno.test("a signal ends its own run after the step, and an error of a callback comes out; nothing is left", async () => {
  await ensureAdapter();
  using gpu = await openGpu();
  const stop = new AbortController();
  let losses = 0;
  const run = (seed: number, onLoss: () => void | Promise<void>, signal?: AbortSignal) =>
    trainTiny(gpu, { seed, onLoss, signal });
  const [stopped, other] = await Promise.all([
    run(1, () => void (++losses === 3 && stop.abort()), stop.signal),
    run(2, () => {}),
  ]);
  assert.deepEqual([stopped.steps, stopped.wasAborted, losses], [3, true, 3]);
  assert.deepEqual([other.steps, other.wasAborted], [10, false]);
  await assert.rejects(run(1, () => Promise.reject(new Error("a callback's own"))), /a callback's own/);
  assert.equal(gpu.stats().memory.usedBytes, 0);
  gpu.check();
});
