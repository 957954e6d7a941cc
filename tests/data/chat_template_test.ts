import assert from "node:assert/strict";
import { join } from "node:path";
import { encodeChat, renderAssistantSpans, renderCompletion } from "../../train/data/chat_mask.ts";
import {
  type ChatMessage,
  createChatTemplate,
  renderChat,
  type RenderChatOptions,
  renderGeneration,
} from "../../train/data/chat_template.ts";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { createTokenizer } from "../../train/data/tokenizer.ts";
import { loadTokenizer, saveTokenizer } from "../../train/data/tokenizer_folder.ts";

const PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}" +
  "{% if add_generation_prompt %}<assistant>{% endif %}";
const MARKED =
  "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}" +
  "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
const specialTokens = { eos_token: "</s>" };
const make = (text: string) => createChatTemplate(text, { source: "t.jinja", specialTokens });
const user = (content: unknown): ChatMessage => ({ role: "user", content });
const assistant = (content: unknown): ChatMessage => ({ role: "assistant", content });
const TURNS = [user("a"), assistant("b"), user("c"), assistant("d")];
const spansOf = ({ text, spans }: { text: string; spans: [number, number][] }) =>
  spans.map(([start, end]) => text.slice(start, end));

Deno.test("variables go before special tokens, messages and the prompt before variables", () => {
  const template = make("{{ eos_token }}{{ x }}{{ messages[0].content }}{{ add_generation_prompt }}");
  const variables = { eos_token: "E", x: 1, messages: [], add_generation_prompt: true };
  assert.equal(renderChat(template, [user("a")], { variables }), "E1aFalse");
  assert.equal(renderChat(template, [user("a")]), "</s>aFalse");
});

Deno.test("tools have a template of their own where there is one", () => {
  const template = createChatTemplate({ default: "d", tool_use: "t{{ tools | length }}" }, { source: "t" });
  assert.equal(renderChat(template, [user("a")]), "d");
  assert.equal(renderChat(template, [user("a")], { tools: [{}] }), "t1");
  assert.throws(() => renderChat(createChatTemplate({ rag: "r" }, { source: "t" }), [user("a")]), {
    message: 'Cannot use the chat template of t: expected one named "default", found rag',
  });
});

Deno.test("each assistant's message has its span, from after its prompt to the end of its turn", () => {
  assert.deepEqual(spansOf(renderAssistantSpans(make(PLAIN), TURNS)), ["b</s>", "d</s>"]);
  assert.deepEqual(spansOf(renderAssistantSpans(make(PLAIN), [assistant("z"), user("c"), assistant("")])), [
    "<assistant>z</s>",
    "</s>",
  ]);
  assert.deepEqual(spansOf(renderAssistantSpans(make(PLAIN), [user("c")])), []);
});

Deno.test("generation blocks are used where there are any, unless messages are asked for", () => {
  assert.deepEqual(spansOf(renderAssistantSpans(make(MARKED), TURNS)), ["b</s>", "d</s>"]);
  assert.throws(() => renderAssistantSpans(make(PLAIN), TURNS, { by: "generation" }), {
    name: "ChatTemplateError",
    message: /t\.jinja: expected {% generation %} blocks, found none/,
  });
  // Without a prompt for the assistant its role is its own.
  assert.deepEqual(spansOf(renderAssistantSpans(make(MARKED), TURNS, { by: "message" })), [
    "<assistant>b</s>",
    "<assistant>d</s>",
  ]);
});

Deno.test("a block that the template works on is refused, and text that looks like a mark is not taken for one", () => {
  const worked =
    "{% set x %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endset %}{{ x | upper }}";
  assert.throws(() => renderGeneration(make(worked), [user("a")]), /found one that the template works on/);
  const content = "\ue000generation 0\ue001a\ue000end 0\ue001";
  const { text, spans } = renderGeneration(make(MARKED), [user(content), assistant(content)]);
  assert.equal(text, `<user>${content}<assistant>${content}</s>`);
  assert.deepEqual(spansOf({ text, spans }), [`${content}</s>`]);
});

Deno.test("a template that renders earlier messages otherwise later is refused", () => {
  const forgetful = "{% for m in messages %}[{{ m.content if loop.last else '' }}]{% endfor %}";
  const conversation = { prompt: [user("abc")], completion: [assistant("d")] };
  assert.throws(() => renderCompletion(make(forgetful), conversation), {
    name: "ChatTemplateError",
    message:
      "Cannot find the assistant's text by the chat template of t.jinja: expected the messages before it to be " +
      'rendered alike alone and within the whole conversation, found "[abc]" alone and "[][d]" within it',
  });
  assert.throws(
    () => renderAssistantSpans(make(forgetful), TURNS),
    /rendered alike alone and within the whole/,
  );
});

Deno.test("a completion is what the whole has after the prompt", () => {
  const conversation = { prompt: TURNS.slice(0, 3), completion: TURNS.slice(3) };
  assert.deepEqual(renderCompletion(make(PLAIN), conversation), {
    prompt: "<user>a</s><assistant>b</s><user>c</s><assistant>",
    completion: "d</s>",
  });
});

const REFUSED: [
  title: string,
  template: string,
  messages: unknown,
  options: RenderChatOptions,
  message: string,
][] = [
  [
    "no messages",
    PLAIN,
    [],
    {},
    "Cannot render the chat template of t.jinja: messages: expected at least one, found []",
  ],
  [
    "a message that is text",
    PLAIN,
    ["hi"],
    {},
    'Cannot render the chat template of t.jinja: message 0: expected an object with role and content, found "hi"',
  ],
  [
    "a message without a role",
    PLAIN,
    [user("a"), { content: "b" }],
    {},
    'Cannot render the chat template of t.jinja: message 1, key "role": expected text, found nothing',
  ],
  [
    "content that is a number",
    PLAIN,
    [user(3)],
    {},
    'Cannot render the chat template of t.jinja: message 0, key "content": expected text or a list of parts, found 3',
  ],
  [
    "a text too long",
    "{% for i in range(10) %}{{ messages[0].content }}{% endfor %}",
    [user("aaaa")],
    { maxLength: 30 },
    "Cannot render the chat template of t.jinja: expected text and lists of at most 30, found 32",
  ],
  [
    "a text that doubles",
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    [user("a")],
    {},
    "Cannot render the chat template of t.jinja: expected text and lists of at most 4194304, found 8388608",
  ],
  [
    "a list that doubles",
    "{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    [user("a")],
    {},
    "Cannot render the chat template of t.jinja: expected text and lists of at most 4194304, found 8388608",
  ],
  [
    "a range without end",
    "{% for i in range(100000000000) %}{% endfor %}",
    [user("a")],
    {},
    "Cannot render the chat template of t.jinja: range: expected at most 4194304 numbers, found 100000000000",
  ],
  [
    "a macro that calls itself",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    [user("a")],
    {},
    "Cannot render the chat template of t.jinja: expected nodes within at most 500 others, found more (a macro without end?)",
  ],
  [
    "a template that is none",
    "{% for m in messages %}",
    [user("a")],
    {},
    "Cannot parse the chat template of t.jinja: ",
  ],
];

for (const [title, template, messages, options, message] of REFUSED) {
  Deno.test(`rendering is refused for ${title}`, () => {
    assert.throws(() => renderChat(make(template), messages as ChatMessage[], options), (error) => {
      assert(error instanceof Error && error.name === "ChatTemplateError", String(error));
      assert(error.message.startsWith(message), error.message);
      return true;
    });
  });
}

Deno.test("loops within loops end after a bounded number of steps", () => {
  const text = "{% for i in range(4000) %}{% for j in range(4000) %}{% set x = 1 %}{% endfor %}{% endfor %}";
  assert.throws(() => renderChat(make(text), [user("a")]), /expected at most 2000000 steps, found more/);
});

Deno.test("a template sees nothing of the program around it", () => {
  for (const name of ["constructor", "__proto__", "toString", "prototype"]) {
    const text =
      `{{ messages.${name} is defined }}{{ messages[0].${name} is defined }}{{ '${name}'.${name} is defined }}`;
    assert.equal(renderChat(make(text), [user("a")]), "FalseFalseFalse");
  }
  assert.equal(
    renderChat(make("{{ Deno is defined }}{{ globalThis is defined }}"), [user("a")]),
    "FalseFalse",
  );
});

Deno.test("tokens that share a character of the assistant's are the assistant's", () => {
  const encoder = new TextEncoder();
  // One token per byte.
  const tokenizer = {
    encode: (text: string) => [...encoder.encode(text)],
    decode: (ids: Iterable<number>) => new TextDecoder().decode(Uint8Array.from(ids)),
  };
  const mask = (text: string, spans: [number, number][]) =>
    encodeChat(tokenizer, { text, spans }).assistantMask.map(Number).join("");
  assert.equal(mask("a👍b", [[1, 3]]), "011110");
  assert.equal(mask("é👍b", [[0, 1], [3, 4]]), "1100001");
  assert.equal(mask("ab", []), "00");
  assert.equal(mask("abcdef", [[1, 3], [4, 6]]), "011011");
  assert.equal(mask("aé", [[1, 2]]), "011");
});

Deno.test("where text is lost, spans are found by their prefixes, or refused", () => {
  const tokenizer = createTokenizer(characterTokenizerFiles("ab", { eos: "." }), { source: "generated" });
  assert.deepEqual(encodeChat(tokenizer, { text: "abxb", spans: [[1, 3]] }).assistantMask, [
    false,
    true,
    true,
    false,
  ]);
  assert.deepEqual(encodeChat(tokenizer, { text: "xa", spans: [[1, 1]] }).assistantMask, [false, false]);
  // One token for all of it, others for its beginning.
  const merging = {
    encode: (text: string) => text === "abcd" ? [9, 4] : Array.from(text, (c) => c.charCodeAt(0)),
    decode: () => "",
  };
  assert.deepEqual(encodeChat(merging, { text: "abcd", spans: [[1, 4]] }).assistantMask, [true, true]);
  assert.deepEqual(encodeChat(merging, { text: "abcd", spans: [[0, 1]] }).assistantMask, [true, false]);
  assert.throws(() => encodeChat(merging, { text: "abcd", spans: [[2, 4]] }), {
    name: "ChatTemplateError",
    message:
      /expected the text before to be cut alike alone and within the whole, found other tokens around "abcd"/,
  });
});

const encodeText = (text: string) => new TextEncoder().encode(text);

Deno.test("chat_template.jinja goes before tokenizer_config.json; both are saved with the tokenizer", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const files = new Map(characterTokenizerFiles("ab", { eos: "." }));
    const without = createTokenizer(files, { source: folder });
    assert.equal(without.chatTemplate, undefined);
    const config = JSON.parse(new TextDecoder().decode(files.get("tokenizer_config.json")));
    const put = (chat_template: unknown) =>
      files.set("tokenizer_config.json", encodeText(JSON.stringify({ ...config, chat_template })));
    put("config{{ eos_token }}");
    const configured = createTokenizer(files, { source: folder }).chatTemplate;
    assert(configured);
    assert.equal(renderChat(configured, [user("a")]), "config.");
    assert.equal(configured.source, join(folder, "tokenizer_config.json"));
    put([{ name: "default", template: "named" }, { name: "tool_use", template: "tools" }]);
    const named = createTokenizer(files, { source: folder }).chatTemplate;
    assert(named);
    assert.equal(renderChat(named, [user("a")], { tools: [] }), "tools");
    files.set("chat_template.jinja", encodeText("\ufefffile{{ bos_token is defined }}"));
    await saveTokenizer(createTokenizer(files, { source: folder }), folder);
    const loaded = await loadTokenizer(folder);
    assert(loaded.chatTemplate);
    assert.equal(renderChat(loaded.chatTemplate, [user("a")]), "fileFalse");
    assert.equal(loaded.chatTemplate.source, join(folder, "chat_template.jinja"));
    put({ default: "x" });
    assert.throws(() => createTokenizer(files, { source: "f" }), {
      message:
        /f\/tokenizer_config\.json: chat_template: expected a template, or a list of templates with their names/,
    });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
