import assert from "node:assert/strict";
import { join } from "node:path";
import { largestDifference, trainAdapter, writeTinyPlaces } from "../../examples/lora.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { startExample } from "./run_example.ts";

gpuTest(
  "lora.ts: an adapter that is loaded again gives the same bits, merged nearly the same",
  async (gpu) => {
    const places = await writeTinyPlaces(gpu, temporaryFolder());
    const losses: number[] = [];
    const { base, trained, loaded, merged } = await trainAdapter(gpu, places, {
      maxSteps: 20,
      learningRate: 1e-2,
      onLog: ({ loss }) => void losses.push(Number(loss)),
    });
    assert.ok(losses[1] < losses[0], losses.join(" "));
    const gain = trained.reduce((total, value, i) => total + value - base[i], 0) / base.length;
    assert.ok(gain > 2, `chosen answers gained ${gain} nats`);
    assert.deepEqual(loaded, trained);
    const difference = largestDifference(merged, trained);
    // Sums in another order, of log-probs of about ten nats.
    assert.ok(difference < 1e-4, `${difference}`);
    const names = Array.from(Deno.readDirSync(join(places.output, "adapter")), ({ name }) => name).toSorted();
    assert.deepEqual(names.slice(0, 2), ["adapter_config.json", "adapter_model.safetensors"]);
  },
);

for (const args of [["no/model", "no.jsonl", "out"], ["model"]]) {
  Deno.test(`lora.ts ${args.join(" ")}: a message, not a stack`, async () => {
    const { code, stderr } = await startExample("lora.ts", args).output();
    const text = new TextDecoder().decode(stderr);
    assert.equal(code, 1, text);
    assert.match(text, /^Cannot .*expected .*, found .*\n$/);
  });
}
