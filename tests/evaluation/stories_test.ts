import assert from "node:assert/strict";
import { join } from "node:path";
import { evaluatePerplexity } from "../../train/evaluation/perplexity.ts";
import { readTexts } from "../../train/evaluation/text_files.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { testGpu } from "../gpu.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { temporaryFolder } from "../tiny_model.ts";

interface Golden {
  prompts: {
    input_ids: number[];
    continuation_ids: number[];
    continuation_logprobs: number[];
    full_text: string;
  }[];
}

testWithSharedData(
  "stories260K predicts its own story better than Shakespeare, as well as its golden log-probs say",
  async () => {
    const folder = join(SHARED_DATA, "models/stories260K");
    const gpu = await testGpu();
    const { model: loaded, tokenizer } = await loadModel(gpu, folder, { trainable: false, positions: 128 });
    using model = loaded;
    const golden = JSON.parse(await Deno.readTextFile(join(folder, "golden.json"))) as Golden;
    const perplexityOf = async (name: string, text: string) => {
      const path = join(temporaryFolder(), name);
      await Deno.writeTextFile(path, text);
      const options = { tokenizer, vocabSize: 512, maxLength: 128, stride: 64 };
      return await evaluatePerplexity(model, readTexts(path, options));
    };
    const { input_ids, continuation_ids, continuation_logprobs, full_text } = golden.prompts[0];
    const own = await perplexityOf("story.txt", full_text);
    const corpus = await Deno.readTextFile(join(SHARED_DATA, "corpus/tinyshakespeare.txt"));
    const other = await perplexityOf("shakespeare.txt", corpus.slice(0, 1000));
    assert.ok(own.perplexity < 3 && other.perplexity > 40, `${own.perplexity} and ${other.perplexity}`);
    // The same tokens, so the golden continuation's log-probs are part of the sum: what is left is the prompt's.
    const windows = [{
      promptIds: input_ids,
      completionIds: continuation_ids,
      source: { file: "golden.json" },
    }];
    const greedy = await evaluatePerplexity(model, [{
      source: { file: "golden.json" },
      windows,
      bytes: () => 1,
    }]);
    const expected = -continuation_logprobs.reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(greedy.negativeLogLikelihood - expected) < 1e-3 * expected);
  },
);
