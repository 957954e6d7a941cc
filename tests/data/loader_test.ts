import assert from "node:assert/strict";
import { createLoader, type Loader, type LoaderState } from "../../train/data/loader.ts";

const take = (loader: Loader, count: number) => Array.from({ length: count }, () => loader.next());
const indicesOf = (loader: Loader, count: number) =>
  take(loader, count).flatMap((batch) => [...batch.indices]);
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const ascending = (values: number[]) => values.toSorted((a, b) => a - b);

Deno.test("an epoch holds every item once, and the next one in another order", () => {
  const loader = createLoader({ count: 12, batchSize: 4, seed: 1 });
  assert.equal(loader.batchesPerEpoch, 3);
  const [first, second] = [indicesOf(loader, 3), indicesOf(loader, 3)];
  assert.deepEqual(ascending(first), range(12));
  assert.deepEqual(ascending(second), range(12));
  assert.notDeepEqual(first, second);
  assert.notDeepEqual(first, range(12));
});

Deno.test("batches say where they stand", () => {
  const places = take(createLoader({ count: 5, batchSize: 2, seed: 1 }), 4).map((
    { epoch, batch },
  ) => [epoch, batch]);
  assert.deepEqual(places, [[0, 0], [0, 1], [1, 0], [1, 1]]);
});

Deno.test("the seed decides the order, and nothing else", () => {
  const options = { count: 20, batchSize: 3, seed: 4 };
  assert.deepEqual(take(createLoader(options), 15), take(createLoader(options), 15));
  assert.notDeepEqual(
    indicesOf(createLoader(options), 6),
    indicesOf(createLoader({ ...options, seed: 5 }), 6),
  );
  // The batch size cuts the same order elsewhere.
  assert.deepEqual(
    indicesOf(createLoader({ ...options, batchSize: 4 }), 5),
    indicesOf(createLoader({ ...options, batchSize: 5 }), 4),
  );
});

Deno.test("without shuffling, the data's own order comes in every epoch", () => {
  const loader = createLoader({ count: 4, batchSize: 2, seed: 1, shuffle: false });
  assert.deepEqual(indicesOf(loader, 4), [0, 1, 2, 3, 0, 1, 2, 3]);
});

Deno.test("a last batch that is not full is dropped, or kept short", () => {
  const options = { count: 7, batchSize: 3, seed: 1, shuffle: false };
  const dropping = createLoader(options);
  assert.equal(dropping.batchesPerEpoch, 2);
  assert.deepEqual(take(dropping, 3).map(({ indices }) => [...indices]), [[0, 1, 2], [3, 4, 5], [0, 1, 2]]);
  const keeping = createLoader({ ...options, lastBatch: "keep" });
  assert.equal(keeping.batchesPerEpoch, 3);
  assert.deepEqual(take(keeping, 4).map(({ indices }) => [...indices]), [[0, 1, 2], [3, 4, 5], [6], [
    0,
    1,
    2,
  ]]);
});

Deno.test("a loader continues from its state at any batch, also after JSON", () => {
  const options = { count: 10, batchSize: 3, seed: 8, lastBatch: "keep" as const };
  const whole = take(createLoader(options), 12);
  for (let done = 0; done < 9; done++) {
    const loader = createLoader(options);
    take(loader, done);
    const state: LoaderState = JSON.parse(JSON.stringify(loader.state()));
    assert.deepEqual(take(createLoader(options, state), 3), whole.slice(done, done + 3));
  }
});

Deno.test("a state of other data, other options or no loader is refused", () => {
  const options = { count: 10, batchSize: 3, seed: 8 };
  const state = createLoader(options).state();
  const refuses = (changed: Record<string, unknown>, message: RegExp) =>
    assert.throws(() => createLoader(options, { ...state, ...changed } as LoaderState), {
      name: "DataError",
      message,
    });
  refuses({ count: 11 }, /expected count 10, found 11 in the state/);
  refuses({ seed: 9 }, /expected seed 8, found 9/);
  refuses({ shuffle: false }, /expected shuffle true, found false/);
  refuses({ batch: 3 }, /expected a batch below 3, found 3/);
  refuses({ epoch: -1 }, /found "epoch"/);
  refuses({ position: 1 }, /expected a loader's state/);
});

Deno.test("fewer records than a batch are refused, naming both numbers", () => {
  for (const lastBatch of ["drop", "keep"] as const) {
    assert.throws(() => createLoader({ count: 5, batchSize: 8, seed: 1, lastBatch }), {
      name: "DataError",
      message: "Cannot load data: expected at least one batch of 8 records, found 5 records",
    });
  }
  assert.equal(createLoader({ count: 8, batchSize: 8, seed: 1 }).batchesPerEpoch, 1);
});

Deno.test("options out of range are refused", () => {
  const good = { count: 4, batchSize: 2, seed: 1 };
  for (const bad of [{ count: -1 }, { count: 1.5 }, { batchSize: 0 }, { batchSize: 1.5 }, { seed: 0.5 }]) {
    assert.throws(() => createLoader({ ...good, ...bad }), RangeError);
  }
});
