import assert from "node:assert/strict";
import {
  type CompletionRecord,
  detectCompletionForm,
  normalizeCompletion,
  unpairRecords,
} from "../../train/data/completion_records.ts";
import { createChatTemplate } from "../../train/data/chat_template.ts";
import { encodeRecords } from "../../train/data/encode_records.ts";

const source = { file: "x.jsonl", line: 3 };
const read = (value: Record<string, unknown>): [string | undefined, CompletionRecord | string] => {
  const form = detectCompletionForm(value);
  return [form, form === undefined ? "none" : normalizeCompletion({ value, source }, form)];
};
const user = { role: "user", content: "Hi" };
const assistant = { role: "assistant", content: "Hello" };

const BYTES = {
  encode: (text: string) => [...new TextEncoder().encode(text)],
  eosTokenId: 0,
  chatTemplate: createChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    { source: "test" },
  ),
};
const OPTIONS = { tokenizer: BYTES, vocabSize: 256, maxLength: 99 };
const text = (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids));

Deno.test("each form becomes a prompt and a completion", () => {
  const plain = { prompt: "Q", completion: " A", source };
  assert.deepEqual(read({ prompt: "Q", completion: " A", other: 1 }), ["completion", plain]);
  assert.deepEqual(read({ prompt: "Q", completion: " A", label: true }), ["labelled", {
    ...plain,
    desirable: true,
  }]);
  assert.deepEqual(read({ prompt: [user], completion: [assistant], label: false }), [
    "labelled",
    { prompt: [user], completion: [assistant], desirable: false, source },
  ]);
  const dialogue = { prompt: [user, assistant, user], completion: [assistant], source };
  assert.deepEqual(read({ messages: [user, assistant, user, assistant] }), ["dialogue", dialogue]);
  const turns = [{ from: "human", value: "Hi" }, { from: "gpt", value: "Hello" }];
  assert.deepEqual(read({ conversations: turns, system: "Be." }), [
    "turns",
    { prompt: [{ role: "system", content: "Be." }, user], completion: [assistant], source },
  ]);
  assert.deepEqual(read({ text: "all of it" }), ["text", { prompt: "", completion: "all of it", source }]);
  assert.deepEqual(read({ instruction: "Do", input: "", output: "Done" }), [
    "answer",
    { prompt: "### Instruction:\nDo\n\n### Response:\n", completion: "Done", source },
  ]);
  assert.deepEqual(read({ question: "1+1?", answer: "2" }), [
    "question",
    { prompt: "Question: 1+1?\nAnswer:", completion: " 2", source },
  ]);
  assert.equal(detectCompletionForm({ prompt: "p", chosen: "1", rejected: "2" }), undefined);
});

Deno.test("what cannot be learnt from says why", () => {
  assert.equal(read({ prompt: "Q", completion: null })[1], "missingCompletion");
  assert.equal(read({ prompt: "Q", completion: " \n" })[1], "emptyCompletion");
  assert.equal(read({ prompt: " ", completion: "A" })[1], "emptyPrompt");
  assert.equal(read({ prompt: [], completion: [assistant] })[1], "emptyPrompt");
  assert.equal(read({ prompt: [user], completion: [user] })[1], "noAssistantTurn");
  assert.equal(read({ messages: [user] })[1], "noAssistantTurn");
  assert.equal(read({ messages: [user, assistant, user] })[1], "noAssistantTurn");
  assert.equal(read({ text: "" })[1], "emptyCompletion");
});

Deno.test("a label that is no boolean, and keys of other types, are refused with their place", () => {
  for (const [label, found] of [[1, "1"], ["true", '"true"'], [null, "null"], [[true], "object"]] as const) {
    assert.throws(() => read({ prompt: "Q", completion: "A", label }), {
      name: "DataError",
      message: `Cannot read x.jsonl:3: key "label": expected true or false, found ${found}`,
    });
  }
  assert.throws(() => read({ prompt: "Q", completion: [assistant] }), {
    message: 'Cannot read x.jsonl:3: key "completion": expected a string, found array',
  });
  assert.throws(() => read({ prompt: [user], completion: "A" }), {
    message: 'Cannot read x.jsonl:3: key "completion": expected a list of messages, found string',
  });
  assert.throws(() => read({ messages: [{ role: "user" }] }), {
    message: 'Cannot read x.jsonl:3: key "messages.0.content": expected a string, found nothing',
  });
});

Deno.test("preferences are unpaired as TRL does: all chosen, then all rejected", () => {
  const pair = (n: number) => ({ prompt: `p${n}`, chosen: `c${n}`, rejected: `r${n}`, margin: 1, source });
  assert.deepEqual(unpairRecords([pair(1), pair(2)]), [
    { prompt: "p1", completion: "c1", desirable: true, source },
    { prompt: "p2", completion: "c2", desirable: true, source },
    { prompt: "p1", completion: "r1", desirable: false, source },
    { prompt: "p2", completion: "r2", desirable: false, source },
  ]);
});

Deno.test("labels stay with their tokens, also where a record before was left out", () => {
  const record = (completion: string, desirable: boolean) => ({ prompt: "p", completion, desirable, source });
  const records = [record("12345678", true), record("x", false), record("y", true)];
  const { examples, counts } = encodeRecords(records, {
    ...OPTIONS,
    ...{ maxLength: 4, truncation: "keep_end", overlong: "drop" },
  });
  assert.deepEqual(examples.map(({ completionIds, desirable }) => [text(completionIds), desirable]), [
    ["x\0", false],
    ["y\0", true],
  ]);
  assert.equal(counts.droppedOverlong, 1);
});

Deno.test("messages go through the chat template, and end as it has it", () => {
  const { examples: [{ promptIds, completionIds }] } = encodeRecords(
    [{ prompt: [user], completion: [assistant], source }],
    OPTIONS,
  );
  assert.deepEqual([text(promptIds), text(completionIds)], ["<user>Hi;<assistant>", "Hello;"]);
});

Deno.test("a whole text is learnt but for its first token, or after BOS whole", () => {
  const records = [{ prompt: "", completion: "abc", source }];
  const { examples: [plain] } = encodeRecords(records, OPTIONS);
  assert.deepEqual([text(plain.promptIds), text(plain.completionIds)], ["a", "bc\0"]);
  const encode = (text: string, options?: { addSpecialTokens?: boolean }) =>
    options?.addSpecialTokens === false ? BYTES.encode(text) : [1, ...BYTES.encode(text)];
  const { examples: [withBos] } = encodeRecords(records, {
    ...OPTIONS,
    tokenizer: { encode, bosTokenId: 1, eosTokenId: 0 },
  });
  assert.deepEqual([withBos.promptIds, text(withBos.completionIds)], [[1], "abc\0"]);
  const { examples: [one] } = encodeRecords([{ ...records[0], completion: "a" }, ...records], OPTIONS);
  assert.equal(text(one.completionIds), "bc\0"); // one token alone predicts nothing, and is left out
});

const TURNS = [user, assistant, { role: "user", content: "And" }, { role: "assistant", content: "Yes" }];
const DECODING = {
  ...BYTES,
  decode: (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids)),
};
const learnt = ({ completionIds, labelMask }: { completionIds: number[]; labelMask?: boolean[] }) =>
  text(completionIds.map((id, i) => (labelMask![i] ? id : 46)));

Deno.test("with assistantOnlyLoss every turn of the assistant's is learnt, and no other token", () => {
  const options = { ...OPTIONS, tokenizer: DECODING, assistantOnlyLoss: true };
  const record = normalizeCompletion({ value: { messages: TURNS }, source }, "dialogue", { allTurns: true });
  const { examples: [example] } = encodeRecords([record as CompletionRecord], options);
  assert.equal(text(example.promptIds), "<user>Hi;<assistant>");
  assert.equal(text(example.completionIds), "Hello;<user>And;<assistant>Yes;");
  assert.equal(learnt(example), "Hello;.....................Yes;");
  // Of a prompt with messages only the completion's turns.
  const given = { prompt: TURNS.slice(0, 3), completion: TURNS.slice(3), source };
  const { examples: [own] } = encodeRecords([given], options);
  assert.deepEqual([text(own.promptIds), learnt(own)], [
    "<user>Hi;<assistant>Hello;<user>And;<assistant>",
    "Yes;",
  ]);
  // A cut within the user's turn leaves nothing of it.
  const { examples: [cut], counts } = encodeRecords([record as CompletionRecord], {
    ...options,
    maxLength: 30,
  });
  assert.deepEqual([learnt(cut), counts.truncated], ["Hello;", 1]);
  assert.throws(
    () => encodeRecords([{ prompt: "Q", completion: "A", source }], options),
    /x\.jsonl:3: expected messages with assistantOnlyLoss, found texts$/,
  );
});

Deno.test("a template's generation blocks say what the assistant's tokens are", () => {
  const chatTemplate = createChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}" +
      "{% else %}{{ m.content }}{% endif %};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    { source: "test" },
  );
  const record = normalizeCompletion({ value: { messages: TURNS }, source }, "dialogue", { allTurns: true });
  const { examples: [example] } = encodeRecords([record as CompletionRecord], {
    ...OPTIONS,
    tokenizer: { ...DECODING, chatTemplate },
    assistantOnlyLoss: true,
  });
  assert.equal(learnt(example), "Hello......................Yes"); // the turns' ends are not in the blocks
});
