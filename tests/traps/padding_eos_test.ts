import assert from "node:assert/strict";
import { packPairs } from "../../train/data/batch.ts";
import { encodePairs } from "../../train/data/encode.ts";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { createTokenizer } from "../../train/data/tokenizer.ts";
import { completionLogps } from "../../train/reference.ts";
import { gpuTest } from "../gpu.ts";
import { referenceTokenLogps, sum, tinyModel } from "../tiny_model.ts";

/** A tokenizer that pads with its EOS, as most of those of base models do. */
function padsWithEos() {
  const files = new Map(characterTokenizerFiles("0123456789+-:,_", { eos: "$" }));
  const name = "tokenizer_config.json";
  const config = JSON.parse(new TextDecoder().decode(files.get(name)));
  files.set(name, new TextEncoder().encode(JSON.stringify({ ...config, pad_token: config.eos_token })));
  return createTokenizer(files, { source: "test" });
}

gpuTest(
  "a tokenizer that pads with EOS: a completion's own EOS is learnt, once on each side",
  async (gpu) => {
    const tokenizer = padsWithEos();
    const records = [
      // Sides of different lengths, so that something has to be made up for.
      { prompt: "1+1:", chosen: "2", rejected: "33333", source: { file: "made", index: 0 } },
      { prompt: "1+1:", chosen: "2$", rejected: "4", source: { file: "made", index: 1 } },
    ];
    const { pairs } = encodePairs(records, { tokenizer, vocabSize: 16, maxLength: 32 });
    const eos = tokenizer.eosTokenId!;
    for (const { chosen, rejected } of pairs) {
      for (const { completionIds } of [chosen, rejected]) {
        assert.equal(completionIds.indexOf(eos), completionIds.length - 1, "once, at the end");
      }
    }
    const { labels } = packPairs(pairs);
    assert.equal([...labels].filter((id) => id === eos).length, 4);
    // The sum that every loss is made of has it too.
    using model = tinyModel(gpu);
    const sides = pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
    const [found, expected] = [await completionLogps(model, sides), await referenceTokenLogps(model, sides)];
    expected.forEach((logps, index) => {
      assert.equal(logps.length, sides[index].completionIds.length);
      assert.ok(Math.abs(found[index] - sum(logps)) < 1e-4, `${found[index]} ${sum(logps)}`);
    });
  },
);
