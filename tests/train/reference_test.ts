import assert from "node:assert/strict";
import { join } from "node:path";
import { completionLogps, referenceLogps } from "../../train/reference.ts";
import { cachedReferenceLogps } from "../../train/reference_cache.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomPairs, referenceTokenLogps, sum, temporaryFolder, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(5, 21);

const namesIn = (folder: string) => Array.from(Deno.readDirSync(folder), ({ name }) => name);

gpuTest("log-probs of both sides are those of the f64 model, in batches of any size", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const { chosen, rejected } = await referenceLogps(model, PAIRS);
  for (const [side, found] of [["chosen", chosen], ["rejected", rejected]] as const) {
    const expected = (await referenceTokenLogps(model, PAIRS.map((pair) => pair[side]))).map(sum);
    assertClose(found, expected, { what: side });
  }
  const progress: [number, number][] = [];
  const onProgress = (done: number, total: number) => void progress.push([done, total]);
  // Every sequence is longer than one token, so each goes alone.
  const alone = await referenceLogps(model, PAIRS, { maxTokens: 1, onProgress });
  assertClose(alone.chosen, chosen, { what: "chosen alone", atol: 1e-6, rtol: 1e-6 });
  assertClose(alone.rejected, rejected, { what: "rejected alone", atol: 1e-6, rtol: 1e-6 });
  assert.deepEqual(progress, Array.from({ length: 10 }, (_, i) => [i + 1, 10]));
});

gpuTest("what the cache holds is read back without running the model", async (gpu) => {
  using model = tinyModel(gpu);
  const folder = join(temporaryFolder(), "made", "on demand");
  const first = await cachedReferenceLogps(model, PAIRS, { folder });
  const { dispatches } = gpu.stats();
  const again = await cachedReferenceLogps(model, PAIRS, { folder });
  assert.equal(gpu.stats().dispatches, dispatches);
  assert.deepEqual(again, first);
  assert.deepEqual(first, await referenceLogps(model, PAIRS));
  assert.ok(gpu.stats().dispatches > dispatches, "without a cache the model runs");
  const names = namesIn(folder);
  assert.equal(names.length, 1);
  assert.match(names[0], /^[0-9a-f]{64}\.f32$/);
});

gpuTest("another weight, token, split or order of pairs is another entry of the cache", async (gpu) => {
  using model = tinyModel(gpu);
  const folder = temporaryFolder();
  let entries = 0;
  const isNew = async (pairs: typeof PAIRS) => {
    const { dispatches } = gpu.stats();
    const found = await cachedReferenceLogps(model, pairs, { folder });
    assert.ok(gpu.stats().dispatches > dispatches);
    assert.equal(namesIn(folder).length, ++entries);
    assert.deepEqual(found, await referenceLogps(model, pairs));
  };
  await isNew(PAIRS);
  const [{ chosen }] = PAIRS;
  const withChosen = (changed: Partial<typeof chosen>) => [
    { ...PAIRS[0], chosen: { ...chosen, ...changed } },
    ...PAIRS.slice(1),
  ];
  await isNew(
    withChosen({ completionIds: [...chosen.completionIds.slice(0, -1), 15 - chosen.completionIds.at(-1)!] }),
  );
  await isNew(withChosen({
    promptIds: [...chosen.promptIds, chosen.completionIds[0]],
    completionIds: [...chosen.completionIds.slice(1), 3],
  }));
  await isNew(PAIRS.toReversed());
  const [value] = await model.parameters.read("model.norm.weight");
  model.parameters.write("model.norm.weight", new Float32Array(16).fill(value + 1e-7));
  await isNew(PAIRS);
});

gpuTest("under ldAlpha the cache has its own entries, with the plain sums beside", async (gpu) => {
  using model = tinyModel(gpu);
  const folder = temporaryFolder();
  const plain = await cachedReferenceLogps(model, PAIRS, { folder });
  const found = [];
  for (const ldAlpha of [1, 0.5, 0]) {
    const first = await cachedReferenceLogps(model, PAIRS, { folder, ldAlpha });
    const { dispatches } = gpu.stats();
    const again = await cachedReferenceLogps(model, PAIRS, { folder, ldAlpha });
    assert.equal(gpu.stats().dispatches, dispatches, "read back");
    assert.deepEqual(again, first);
    assert.deepEqual([first.chosen, first.rejected], [plain.chosen, plain.rejected]);
    assert.equal(first.desensitized!.ldAlpha, ldAlpha);
    found.push(first.desensitized!);
  }
  assert.equal(namesIn(folder).length, 4);
  const [whole, half, none] = found;
  assert.deepEqual([whole.chosen, whole.rejected], [plain.chosen, plain.rejected]);
  for (const side of ["chosen", "rejected"] as const) {
    const tokens = await referenceTokenLogps(model, PAIRS.map((pair) => pair[side]));
    const heads = PAIRS.map((pair) =>
      Math.min(pair.chosen.completionIds.length, pair.rejected.completionIds.length)
    );
    assert.ok(tokens.some(({ length }, p) => length > heads[p]), `${side}: some are the longer one`);
    const weighted = (alpha: number) =>
      tokens.map((logps, p) => sum(logps.slice(0, heads[p])) + alpha * sum(logps.slice(heads[p])));
    assertClose(half[side], weighted(0.5), { what: `${side} under 0.5` });
    assertClose(none[side], weighted(0), { what: `${side} under 0` });
  }
});

gpuTest("another config with the same weights is another entry of the cache", async (gpu) => {
  const folder = temporaryFolder();
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { config: { rope_theta: 50 } });
  const found = await cachedReferenceLogps(model, PAIRS, { folder });
  assert.notDeepEqual(await cachedReferenceLogps(other, PAIRS, { folder }), found);
  assert.equal(namesIn(folder).length, 2);
});

gpuTest("a cut or damaged entry is computed again and replaced", async (gpu) => {
  using model = tinyModel(gpu);
  const folder = temporaryFolder();
  const good = await cachedReferenceLogps(model, PAIRS, { folder });
  const path = join(folder, namesIn(folder)[0]);
  const bytes = Deno.readFileSync(path);
  const flipped = bytes.slice();
  flipped[6] ^= 1;
  for (const bad of [bytes.subarray(0, 40), bytes.subarray(0, 0), flipped, new Uint8Array([...bytes, 0])]) {
    Deno.writeFileSync(path, bad);
    const { dispatches } = gpu.stats();
    assert.deepEqual(await cachedReferenceLogps(model, PAIRS, { folder }), good);
    assert.ok(gpu.stats().dispatches > dispatches);
    assert.deepEqual(Deno.readFileSync(path), bytes);
    assert.equal(namesIn(folder).length, 1, "no half file");
  }
});

gpuTest("scoring a trainable model records nothing and keeps the order", async (gpu) => {
  using model = tinyModel(gpu);
  const chosen = PAIRS.map((pair) => pair.chosen);
  const forth = await completionLogps(model, chosen, { maxTokens: 12 });
  const back = await completionLogps(model, chosen.toReversed(), { maxTokens: 12 });
  assertClose(back.toReversed(), forth, { what: "log-probs", atol: 1e-6, rtol: 1e-6 });
});
