import assert from "node:assert/strict";
import { createLoader, type LoaderOptions } from "../../train/data/loader.ts";
import { mixtureOrder, samplesPerEpoch } from "../../train/data/mixture.ts";
import { splitByTokens } from "../../train/data/token_budget.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

const PARTS = [{ count: 60, weight: 0.3 }, { count: 30, weight: 0.5 }, { count: 10, weight: 0.2 }];
const OPTIONS: LoaderOptions = { count: 100, batchSize: 7, seed: 3, parts: PARTS };
const partOf = (index: number) => index < 60 ? 0 : index < 90 ? 1 : 2;
const count = (indices: Iterable<number>) => {
  const counts = [0, 0, 0];
  for (const index of indices) counts[partOf(index)]++;
  return counts;
};

Deno.test("every epoch draws each source's share exactly, interleaved, and the seed decides the order", () => {
  const orders = [0, 1, 2].map((epoch) => mixtureOrder(PARTS, { seed: 3, epoch, shuffle: true }));
  for (const order of orders) assert.deepEqual(count(order), [30, 50, 20]);
  // Interleaved: no half of an epoch misses its share by more than chance would have it.
  for (const order of orders) {
    const [, half] = count(order.subarray(0, 50));
    assert.ok(half > 15 && half < 35, `${half} of 50`);
  }
  assert.deepEqual(mixtureOrder(PARTS, { seed: 3, epoch: 1, shuffle: true }), orders[1]);
  assert.notDeepEqual(orders[0], orders[1]);
  assert.notDeepEqual(mixtureOrder(PARTS, { seed: 4, epoch: 0, shuffle: true }), orders[0]);
});

Deno.test("a source goes through all its items before any comes again, over epochs", () => {
  const drawn = [0, 1, 2, 3].flatMap((epoch) => [...mixtureOrder(PARTS, { seed: 9, epoch, shuffle: true })]);
  for (const [part, size] of [60, 30, 10].entries()) {
    const items = drawn.filter((index) => partOf(index) === part);
    for (let pass = 0; (pass + 1) * size <= items.length; pass++) {
      assert.equal(new Set(items.slice(pass * size, (pass + 1) * size)).size, size);
    }
  }
  const seldom = drawn.slice(0, 200).filter((index) => partOf(index) === 0);
  assert.equal(new Set(seldom).size, 60); // 30 in each of two epochs: all of them
});

Deno.test("a resumed mixture goes on exactly, from every place, and refuses other weights", () => {
  const whole = createLoader(OPTIONS);
  const batches = Array.from({ length: 40 }, () => whole.next());
  for (const at of [0, 1, 13, 14, 15, 29]) {
    const before = createLoader(OPTIONS);
    for (let i = 0; i < at; i++) before.next();
    const resumed = createLoader(OPTIONS, JSON.parse(JSON.stringify(before.state())));
    assert.deepEqual(Array.from({ length: 40 - at }, () => resumed.next()), batches.slice(at));
  }
  const other = { ...OPTIONS, parts: PARTS.map((part) => ({ ...part, weight: 1 })) };
  assert.throws(() => createLoader(other, whole.state()), /expected sources .*"weight":1.*found .*0\.3/);
  assert.throws(() => createLoader({ ...OPTIONS, parts: undefined }, whole.state()), /expected sources none/);
  assert.throws(
    () => createLoader({ ...OPTIONS, count: 99 }),
    /expected sources of 99 items together, found 100/,
  );
});

Deno.test("weights need not sum to one, must be positive, and may not starve a source", () => {
  assert.deepEqual(samplesPerEpoch([{ count: 1, weight: 7 }, { count: 1, weight: 3 }], 10), [7, 3]);
  assert.deepEqual(samplesPerEpoch([1, 1, 1].map((weight) => ({ count: 1, weight })), 10), [4, 3, 3]);
  for (const weight of [0, -1, NaN, Infinity]) {
    assert.throws(() => samplesPerEpoch([{ count: 1, weight }], 10), RangeError);
  }
  assert.throws(() => samplesPerEpoch([{ count: 5, weight: 1 }, { count: 5, weight: 0.01 }], 10), {
    name: "DataError",
    message:
      "Cannot mix data: expected a weight that gives source 2 a sample in an epoch of 10, found 0.01 of 1.01",
  });
});

Deno.test("parts within a token budget are the batch, in order, and could not take one item more", () => {
  const random = createRandom(5);
  for (let round = 0; round < 200; round++) {
    const lengths = Array.from({ length: 1 + uniformInt(random, 20) }, () => 1 + uniformInt(random, 30));
    const items = Uint32Array.from(lengths, (_, i) => i);
    const maxTokens = 30 + uniformInt(random, 40);
    const tokens = (part: Uint32Array) => part.reduce((sum, item) => sum + lengths[item], 0);
    const parts = splitByTokens(items, {
      maxTokens,
      size: (part) => ({ tokens: tokens(part), labels: 0 }),
      source: String,
    });
    assert.deepEqual(parts.flatMap((part) => [...part]), [...items]);
    for (const [i, part] of parts.entries()) {
      assert.ok(part.length > 0 && tokens(part) <= maxTokens);
      if (i > 0) assert.ok(tokens(parts[i - 1]) + lengths[part[0]] > maxTokens);
    }
  }
});

Deno.test("an item larger than the budget is refused by name", () => {
  const size = (part: Uint32Array) => ({ tokens: part.length * 9, labels: 0 });
  assert.throws(
    () => splitByTokens(Uint32Array.of(4), { maxTokens: 8, size, source: (item) => `x.jsonl:${item}` }),
    {
      name: "DataError",
      message: "Cannot fit x.jsonl:4 into a micro-batch: expected at most 8 tokens, found 9",
    },
  );
});
