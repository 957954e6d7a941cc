/** Renderings and masks as transformers gives them; see chat_templates.py. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { encodeChat, renderAssistantSpans } from "../../train/data/chat_mask.ts";
import {
  type ChatMessage,
  type ChatTemplate,
  createChatTemplate,
  hasGenerationBlocks,
  renderChat,
  renderGeneration,
} from "../../train/data/chat_template.ts";
import { encodePairs } from "../../train/data/encode.ts";
import { loadTokenizer } from "../../train/data/tokenizer_folder.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

interface Conversation {
  messages: ChatMessage[];
  tools?: unknown[];
  add_generation_prompt?: boolean;
  variables?: Record<string, unknown>;
}
interface Result {
  text?: string;
  error?: string;
  /** In code points. */
  spans?: [number, number][];
}
type Special = Record<string, string>;

const GOLDEN: {
  now: string;
  conversations: Conversation[];
  templates: Record<string, { special: Special; results: Result[] }>;
  masks: (string | null)[];
  llama_template: string;
  llama_masks: { messages: ChatMessage[]; ids: number[]; mask: string }[];
  completions: {
    prompt: ChatMessage[];
    completion: ChatMessage[];
    /** Ids of the prompt, and of the whole. */
    qwen: [number[], number[]];
    minimind: [number[], number[]];
  }[];
  probe_context: Conversation & { special: Special };
  probes: ({ template: string } & Result)[];
} = JSON.parse(Deno.readTextFileSync(new URL("./chat_templates.json", import.meta.url)));

const optionsOf = ({ tools, add_generation_prompt: addGenerationPrompt, variables }: Conversation) => ({
  tools,
  addGenerationPrompt,
  variables,
  now: new Date(GOLDEN.now),
});

function check(template: ChatTemplate, context: { conversation: Conversation; expected: Result }): void {
  const { conversation, expected } = context;
  const options = optionsOf(conversation);
  const render = () => renderChat(template, conversation.messages, options);
  if (expected.error !== undefined) {
    assert.throws(render, { name: "ChatTemplateError" });
    return;
  }
  const text = render();
  assert.equal(text, expected.text);
  if (!hasGenerationBlocks(template)) return assert.equal(expected.spans, undefined);
  const generation = renderGeneration(template, conversation.messages, options);
  assert.equal(generation.text, text);
  const codePoints = (end: number) => Array.from(text.slice(0, end)).length;
  const spans = generation.spans.map(([start, end]) => [codePoints(start), codePoints(end)]);
  assert.deepEqual(spans, expected.spans ?? []);
}

for (const { template, ...expected } of GOLDEN.probes) {
  Deno.test(`rendered as transformers does: ${JSON.stringify(template).slice(1, 90)}`, () => {
    const { special, ...conversation } = GOLDEN.probe_context;
    check(createChatTemplate(template, { source: "probe", specialTokens: special }), {
      conversation,
      expected,
    });
  });
}

for (const [name, { special, results }] of Object.entries(GOLDEN.templates)) {
  testWithSharedData(`${name} is rendered as transformers does`, async () => {
    const path = join(SHARED_DATA, name);
    const template = name.endsWith(".jinja")
      ? createChatTemplate(Deno.readTextFileSync(path), { source: name, specialTokens: special })
      : (await loadTokenizer(path)).chatTemplate;
    assert(template);
    for (const [i, conversation] of GOLDEN.conversations.entries()) {
      check(template, { conversation, expected: results[i] });
    }
  });
}

Deno.test("what a template raises is told in its own words", () => {
  const { special, ...conversation } = GOLDEN.probe_context;
  const probe = GOLDEN.probes.find(({ template }) => template.includes("raise_exception"));
  assert(probe);
  const template = createChatTemplate(probe.template, { source: "folder/x.jinja", specialTokens: special });
  assert.throws(() => renderChat(template, conversation.messages), {
    message: `Cannot render the chat template of folder/x.jinja: ${probe.error}`,
  });
});

testWithSharedData("the assistant's tokens are those of transformers' mask", async () => {
  const tokenizer = await loadTokenizer(join(SHARED_DATA, "tokenizers/qwen2.5-0.5b-instruct"));
  const source = "chat-templates/qwen2_5_training.jinja";
  const template = createChatTemplate(Deno.readTextFileSync(join(SHARED_DATA, source)), { source });
  let assistantTokens = 0;
  for (const [i, conversation] of GOLDEN.conversations.entries()) {
    const expected = GOLDEN.masks[i];
    if (expected === null) continue;
    const chat = renderAssistantSpans(template, conversation.messages, optionsOf(conversation));
    const { ids, assistantMask } = encodeChat(tokenizer, chat);
    assert.equal(ids.length, expected.length);
    assert.equal(assistantMask.map(Number).join(""), expected, JSON.stringify(conversation));
    assistantTokens += assistantMask.filter(Boolean).length;
  }
  assert(assistantTokens > 50);
});

testWithSharedData("a completion's tokens are those that TRL trains on", async () => {
  const folders = { qwen: "tokenizers/qwen2.5-0.5b-instruct", minimind: "tokenizers/minimind-6400" } as const;
  for (const [key, folder] of Object.entries(folders) as ["qwen" | "minimind", string][]) {
    const tokenizer = await loadTokenizer(join(SHARED_DATA, folder));
    const source = { file: "x.jsonl", line: 1 };
    for (const golden of GOLDEN.completions) {
      const rejected = [{ role: "assistant", content: "No." }];
      const record = { prompt: golden.prompt, chosen: golden.completion, rejected, source };
      const { vocabSize } = tokenizer;
      const { pairs: [{ chosen }] } = encodePairs([record], { tokenizer, vocabSize, maxLength: 4096 });
      const [prompt, whole] = golden[key];
      // Where the answer begins with a newline, Qwen makes one token of it and the prompt's last: the answer's.
      const isMerged = key === "qwen" && String(golden.completion[0].content).startsWith("\n");
      assert.deepEqual(chosen.promptIds, isMerged ? prompt.slice(0, -1) : prompt);
      assert.deepEqual([...chosen.promptIds, ...chosen.completionIds], whole);
      // The tokens that end the turn are learnt: without them the model would never stop.
      assert(tokenizer.eosTokenId !== undefined && chosen.completionIds.includes(tokenizer.eosTokenId));
    }
  }
});

testWithSharedData(
  "the assistant's tokens are found where decoding does not give the text back",
  async () => {
    const tokenizer = await loadTokenizer(join(SHARED_DATA, "models/stories260K"));
    const specialTokens = { bos_token: "<s>", eos_token: "</s>" };
    const template = createChatTemplate(GOLDEN.llama_template, { source: "llama", specialTokens });
    for (const { messages, ids, mask } of GOLDEN.llama_masks) {
      const encoded = encodeChat(tokenizer, renderAssistantSpans(template, messages));
      assert.deepEqual(encoded.ids, ids);
      assert.equal(encoded.assistantMask.map(Number).join(""), mask);
    }
  },
);
