import assert from "node:assert/strict";
import { join } from "node:path";
import { generateText } from "../../train/generation/text.ts";
import { createDecoder } from "../../train/generation/decoder.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { testGpu } from "../gpu.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

testWithSharedData(
  "text follows the prompt's, spaces included, in pieces, up to a stop string or id",
  async () => {
    const gpu = await testGpu();
    const { model, tokenizer } = await loadModel(gpu, join(SHARED_DATA, "models/stories260K"), {
      trainable: false,
    });
    using _ = model;
    using decoder = createDecoder(model, { sequences: 1, positions: 128 });
    const prompt = "Once upon a time, there was a";
    const promptIds = tokenizer.encode(prompt);
    const pieces: string[] = [];
    const options = { tokenizer, maxNewTokens: 40 };
    const whole = await generateText(decoder, promptIds, {
      ...options,
      onText: (piece) => void pieces.push(piece),
    });
    const decoded = tokenizer.decode([...promptIds, ...whole.ids], { skipSpecialTokens: true });
    assert.equal(prompt + whole.text, decoded);
    assert.ok(whole.text.startsWith(" little"), whole.text);
    assert.equal(pieces.join(""), whole.text);
    assert.ok(pieces.length > 20);
    assert.deepEqual([whole.ids.length, whole.finish], [40, "length"]);

    const stop = whole.text.slice(13, 24); // begins and ends within tokens
    const cut = await generateText(decoder, promptIds, { ...options, stopStrings: [stop] });
    assert.deepEqual([cut.text, cut.finish], [whole.text.slice(0, whole.text.indexOf(stop)), "stop"]);
    assert.ok(cut.ids.length < 40);

    const stopIds = [whole.ids[7]];
    const ended = await generateText(decoder, promptIds, { ...options, stopIds });
    assert.deepEqual(ended.ids, whole.ids.slice(0, whole.ids.indexOf(stopIds[0]) + 1));
    assert.equal(
      ended.text,
      tokenizer.decode([...promptIds, ...ended.ids.slice(0, -1)]).slice(-ended.text.length),
    );
    assert.equal(ended.finish, "stop");

    const controller = new AbortController();
    const aborted = await generateText(decoder, promptIds, {
      ...options,
      signal: controller.signal,
      onText: () => controller.abort(),
    });
    assert.equal(aborted.finish, "aborted");
    assert.ok(aborted.ids.length < 40 && whole.text.startsWith(aborted.text));
  },
);
