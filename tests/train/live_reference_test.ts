import assert from "node:assert/strict";
import { Tape } from "../../engine/tape.ts";
import { hostHeadEnds } from "../../engine/ops/sequence_logps.ts";
import { release, upload } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { detachedSequenceLogps, detachedSequenceSums } from "../../train/live_reference.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { randomCompletions, tinyModel } from "../tiny_model.ts";

gpuTest(
  "a reference run while a tape records leaves its sums alone, and nothing to go back through",
  async (gpu) => {
    using model = tinyModel(gpu);
    const completions = randomCompletions(4, 3);
    const packed = packSequences(completions);
    const batch = uploadBatch(model, packed);
    const headEnds = upload(gpu, hostHeadEnds(packed.completionLengths, [1, 1, 1, 1]));
    const usedBytes = () => gpu.stats().memory.usedBytes;
    const before = usedBytes();
    using tape = new Tape(gpu);
    const alone = tape.keep(detachedSequenceLogps(model, batch));
    const buffer = usedBytes() - before;
    // The smallest buffer there is.
    assert.equal(buffer, 256);
    const sums = detachedSequenceSums(model, batch, { headEnds, weight: 0.5 });
    const kept = [sums.plain, sums.weighted].map((tensor) => tape.keep(tensor));
    assert.equal(usedBytes() - before, 3 * buffer);
    assert.ok([alone, ...kept].every(({ requiresGrad }) => !requiresGrad));
    const [whole, plain, weighted] = await readAll(gpu, [alone, ...kept]);
    assert.deepEqual(plain, whole);
    assert.notDeepEqual(weighted, whole);
    [alone, ...kept].forEach(release);
  },
);
