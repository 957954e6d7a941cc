/** Records of messages: their forms, what is left out, what is refused, and how they are encoded. */
import assert from "node:assert/strict";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { encodePairs } from "../../train/data/encode.ts";
import type { Row } from "../../train/data/rows.ts";
import { collectPreferences, formatSkipped } from "../../train/data/records.ts";
import { createTokenizer } from "../../train/data/tokenizer.ts";

const rows = (values: Record<string, unknown>[]): Row[] =>
  values.map((value, i) => ({ value, source: { file: "x.jsonl", line: i + 1 } }));
const collect = (...values: Record<string, unknown>[]) => collectPreferences(rows(values), "x.jsonl");

const user = (content: unknown) => ({ role: "user", content });
const assistant = (content: unknown) => ({ role: "assistant", content });
const system = (content: unknown) => ({ role: "system", content });
const GOOD = { prompt: [user("a")], chosen: [assistant("b")], rejected: [assistant("c")] };
const human = (value: unknown) => ({ from: "human", value });
const gpt = (value: unknown) => ({ from: "gpt", value });
const SHARED_GPT = { conversations: [human("a")], chosen: gpt("b"), rejected: gpt("c") };

Deno.test("all three forms give the same record", async () => {
  const implicit = { chosen: [user("a"), assistant("b")], rejected: [user("a"), assistant("c")] };
  for (
    const [form, value] of Object.entries({ messages: GOOD, conversations: implicit, sharegpt: SHARED_GPT })
  ) {
    const data = await collect(value);
    assert.equal(data.form, form);
    assert.deepEqual(data.records, [{ ...GOOD, source: { file: "x.jsonl", line: 1 } }]);
  }
});

Deno.test("text that repeats the question beside conversations is another column", async () => {
  const value = {
    prompt: "a",
    chosen: [user("a"), assistant("b")],
    rejected: [user("a"), assistant("c")],
    messages: [1],
  };
  const { records, form } = await collect(value);
  assert.equal(form, "conversations");
  assert.deepEqual(records[0].prompt, [user("a")]);
});

Deno.test("conversations share their prompt up to the first message that differs, keys in any order", async () => {
  const start = [system("s"), user("a"), assistant("b"), { content: "c", role: "user" }];
  const other = [system("s"), user("a"), assistant("b"), user("c"), assistant("e")];
  const { records } = await collect({ chosen: [...start, assistant("d")], rejected: other });
  assert.deepEqual([records[0].prompt, records[0].chosen, records[0].rejected], [
    start,
    [assistant("d")],
    [assistant("e")],
  ]);
});

Deno.test("tools and variables go to the template; ShareGPT's system text is the first message", async () => {
  const tools = [{ name: "f" }];
  const { records } = await collect({ ...GOOD, tools, chat_template_kwargs: { enable_thinking: false } });
  assert.deepEqual(records[0], {
    ...GOOD,
    tools,
    variables: { enable_thinking: false },
    source: { file: "x.jsonl", line: 1 },
  });
  const shared = await collect({ ...SHARED_GPT, system: "s" });
  assert.deepEqual(shared.records[0].prompt, [system("s"), user("a")]);
});

Deno.test("unusable records are counted by reason", async () => {
  const call = { role: "assistant", tool_calls: [{ name: "f" }] };
  const { records, skipped } = await collect(
    GOOD,
    { ...GOOD, chosen: null },
    { ...GOOD, rejected: null },
    { ...GOOD, rejected: GOOD.chosen },
    { ...GOOD, chosen: [assistant(" ")] },
    { ...GOOD, chosen: [] },
    { ...GOOD, prompt: [] },
    { ...GOOD, prompt: [user("")] },
    { ...GOOD, chosen: [user("b")] },
    { ...GOOD, chosen: [assistant("b"), user("c"), assistant("d")] },
    { ...GOOD, chosen: [call, { role: "tool", content: "1" }, assistant("d")] },
  );
  assert.deepEqual(records.map(({ source }) => source.line), [1, 11]);
  assert.equal(
    formatSkipped(skipped),
    "1 missingChosen, 1 missingRejected, 1 identical, 2 emptyCompletion, 1 emptyPrompt, 2 noCommonPrompt, 1 laterTurn",
  );
});

const REFUSED: [title: string, value: Record<string, unknown>, message: string][] = [
  [
    "content that is a number",
    { ...GOOD, prompt: [user("a"), user(3)] },
    'key "prompt.1.content": expected a string, found number',
  ],
  [
    "content in parts",
    { ...GOOD, chosen: [assistant([{ type: "text", text: "b" }])] },
    'key "chosen.0.content": expected a string, found array',
  ],
  [
    "no content and no tool call",
    { ...GOOD, chosen: [{ role: "assistant" }] },
    'key "chosen.0.content": expected a string, found nothing',
  ],
  [
    "no role",
    { ...GOOD, rejected: [{ content: "c" }] },
    'key "rejected.0.role": expected a string, found nothing',
  ],
  [
    "a message that is text",
    { ...GOOD, chosen: ["b"] },
    'key "chosen.0": expected a message with role and content, found "b"',
  ],
  [
    "one message for a list",
    { ...GOOD, chosen: assistant("b") },
    'key "chosen": expected a list of messages, found object',
  ],
  ["text for a list", { ...GOOD, rejected: "c" }, 'key "rejected": expected a list of messages, found "c"'],
  ["tools as text", { ...GOOD, tools: "[]" }, 'key "tools": expected a list of schemas, found "[]"'],
  [
    "an unknown speaker",
    { ...SHARED_GPT, conversations: [{ from: "narrator", value: "a" }] },
    'key "conversations.0.from": expected "human", "user", "gpt", "assistant", "system", "observation", found "narrator"',
  ],
  [
    "a turn without a value",
    { ...SHARED_GPT, chosen: { from: "gpt" } },
    'key "chosen.value": expected a string, found nothing',
  ],
];

for (const [title, value, message] of REFUSED) {
  Deno.test(`a record of messages is refused for ${title}`, async () => {
    const first = "conversations" in value ? SHARED_GPT : GOOD;
    await assert.rejects(collect(first, value), {
      name: "DataError",
      message: `Cannot read x.jsonl:2: ${message}`,
    });
  });
}

Deno.test("texts and messages do not mix in a file", async () => {
  await assert.rejects(collect(GOOD, { prompt: "a", chosen: "b", rejected: "c" }), {
    name: "DataError",
    message: 'Cannot read x.jsonl:2: expected the form "messages" as in x.jsonl:1, found the form "prompt"',
  });
});

const TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}" +
  "{{ raise_exception('unknown role ' + m.role) }}{% endif %}{{ '(' if m.role == 'user' else '[' }}{{ m.content }}." +
  "{% endfor %}{% if add_generation_prompt %}[{% endif %}";

function tokenizerWith(chat_template: string | undefined) {
  const files = new Map(characterTokenizerFiles("^abc([", { eos: "." }));
  const config = JSON.parse(new TextDecoder().decode(files.get("tokenizer_config.json")));
  const bytes = new TextEncoder().encode(JSON.stringify({ ...config, bos_token: "^", chat_template }));
  files.set("tokenizer_config.json", bytes);
  return createTokenizer(files, { source: "folder" });
}
const encode = async (value: Record<string, unknown>, template: string | undefined = TEMPLATE) => {
  const { records } = await collect(value);
  return encodePairs(records, { tokenizer: tokenizerWith(template), vocabSize: 8, maxLength: 32 }).pairs[0];
};

Deno.test("the template's text is encoded as it stands: no further BOS, no further EOS", async () => {
  const { chosen, rejected } = await encode(GOOD);
  // ^(a.[ and b. or c.
  assert.deepEqual(chosen, {
    promptIds: [0, 4, 1, 6, 5],
    completionIds: [2, 6],
    source: { file: "x.jsonl", line: 1 },
  });
  assert.deepEqual(rejected.completionIds, [3, 6]);
});

Deno.test("what the template leaves out is not added, asked for or not", async () => {
  const { records } = await collect(GOOD);
  const tokenizer = tokenizerWith(
    "{% for m in messages %}({{ m.content }}.b{% endfor %}{{ '(' if add_generation_prompt }}",
  );
  for (const more of [{}, { addBos: true, addEos: true }]) {
    const { pairs } = encodePairs(records, { tokenizer, vocabSize: 8, maxLength: 32, ...more });
    assert.deepEqual(pairs[0].chosen.promptIds, [4, 1, 6, 2, 4]);
    assert.deepEqual(pairs[0].chosen.completionIds, [2, 6, 2]);
  }
});

Deno.test("texts stay texts where the model has a chat template", async () => {
  const { chosen } = await encode({ prompt: "a", chosen: "b", rejected: "c" });
  assert.deepEqual([chosen.promptIds, chosen.completionIds], [[1], [2, 6]]);
});

Deno.test("messages without a template, or that it refuses, are errors that name the record", async () => {
  const { records } = await collect(GOOD);
  const tokenizer = tokenizerWith(undefined);
  assert.throws(() => encodePairs(records, { tokenizer, vocabSize: 8, maxLength: 32 }), {
    name: "DataError",
    message:
      "Cannot encode x.jsonl:1: expected a tokenizer with a chat template for its messages, found one without " +
      "(no chat_template.jinja, no chat_template in tokenizer_config.json)",
  });
  await assert.rejects(encode({ ...GOOD, prompt: [system("a")] }), {
    name: "DataError",
    message:
      "Cannot encode x.jsonl:1: Cannot render the chat template of folder/tokenizer_config.json: unknown role system",
  });
});
