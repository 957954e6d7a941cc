import assert from "node:assert/strict";
import { hostHeadEnds } from "../../engine/ops/sequence_logps.ts";
import { Tape } from "../../engine/tape.ts";
import { release, toHost, upload } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { detachedSequenceLogps, detachedSequenceSums, liveReference } from "../../train/live_reference.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { completionLogps } from "../../train/reference.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomCompletions, tinyModel } from "../tiny_model.ts";

const COMPLETIONS = randomCompletions(6, 3);
const NAME = "model.layers.0.self_attn.o_proj.weight";

for (const dtype of ["f32", "f16"] as const) {
  gpuTest(
    `a frozen copy in ${dtype} scores as its model did, to the bit, and has nothing of it after`,
    async (gpu) => {
      using model = tinyModel(gpu, { dtype });
      const before = await completionLogps(model, COMPLETIONS);
      using reference = liveReference(model);
      for (const { gradient } of reference.model.trained.blocks) assert.equal(gradient, undefined);
      const [rows, columns] = model.parameters.shapes.get(NAME)!;
      model.parameters.write(NAME, new Float32Array(rows * columns).fill(0.5));
      assert.deepEqual(await completionLogps(reference.model, COMPLETIONS), before);
      assert.notDeepEqual(await completionLogps(model, COMPLETIONS), before);
    },
  );

  gpuTest(`a reference in ${dtype} moves in f32, and its kernels read what it moved to`, async (gpu) => {
    using model = tinyModel(gpu, { dtype });
    using reference = liveReference(model, { sync: { alpha: 0.3, steps: 1 } });
    const start = await reference.model.parameters.read(NAME);
    const target = start.map((value, index) => value + (index % 3) * 0.1);
    model.parameters.write(NAME, target);
    reference.afterStep!(1);
    reference.afterStep!(2);
    const expected = start.map((value, index) =>
      0.3 * target[index] + 0.7 * (0.3 * target[index] + 0.7 * value)
    );
    const moved = await reference.model.parameters.read(NAME);
    assertClose(moved, expected, { what: "master", atol: 1e-6, rtol: 1e-6 });
    const read = reference.model.parameters.get(NAME);
    assert.equal(read.type, dtype);
    assertClose(await toHost(read), expected, { what: "copy", rtol: 2 ** -11, atol: 1e-6 });
    // With alpha 1 it is the policy.
    using whole = liveReference(model, { sync: { alpha: 1, steps: 2 } });
    model.parameters.write(NAME, start);
    whole.afterStep!(1);
    assert.notDeepEqual(
      await completionLogps(whole.model, COMPLETIONS),
      await completionLogps(model, COMPLETIONS),
    );
    whole.afterStep!(2);
    assert.deepEqual(
      await completionLogps(whole.model, COMPLETIONS),
      await completionLogps(model, COMPLETIONS),
    );
  });
}

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
