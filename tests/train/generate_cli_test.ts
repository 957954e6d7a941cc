/**
 * `generate` and `chat` as a user meets them: in their own process, with standard input, output and exit code.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Gpu } from "../../engine/gpu.ts";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { createTokenizer, type Tokenizer } from "../../train/data/tokenizer.ts";
import { generate, type GenerateOptions } from "../../train/generate.ts";
import { loadModel, saveModel } from "../../train/models/model_files.ts";
import { LAUNCHER } from "../launcher.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder, tinyModel } from "../tiny_model.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs the command line; with `interrupt`, sends Ctrl-C when standard output has something. */
async function keel(
  args: readonly string[],
  { input = "", interrupt = false }: { input?: string; interrupt?: boolean } = {},
): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  // A command that refuses its flags reads nothing.
  await writer.write(new TextEncoder().encode(input)).then(() => writer.close()).catch(() => {});
  const collect = async (stream: ReadableStream<Uint8Array>, onText: () => void): Promise<string> => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const part of stream) {
      if (text === "") onText();
      text += decoder.decode(part, { stream: true });
    }
    return text;
  };
  const [out, error, { code }] = await Promise.all([
    collect(child.stdout, () => interrupt && child.kill("SIGINT")),
    collect(child.stderr, () => {}),
    child.status,
  ]);
  return { code, out, error };
}

/** Messages end with ":" where a user spoke, with "$" where the assistant did. */
const TEMPLATE =
  "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system here.') }}{% endif %}" +
  "{{ m.content }}{{ ':' if m.role == 'user' else '$' }}{% endfor %}";

function makeTokenizer(): Tokenizer {
  return createTokenizer(characterTokenizerFiles("0123456789+-:,$", { eos: "$" }), { source: "test" });
}

/** A folder with a model of random weights, with a chat template or without. */
async function makeModel(
  gpu: Gpu,
  options: { template?: string; isEndless?: boolean } = {},
): Promise<string> {
  const folder = temporaryFolder();
  const tokenizer = makeTokenizer();
  const config = { max_position_embeddings: options.isEndless ? 32_768 : 128, initializer_range: 0.5 };
  // Where the first such model was found, on one adapter.
  for (let seed = options.isEndless ? 18 : 1;; seed++) {
    using model = tinyModel(gpu, { trainable: false, config, seed });
    // One that does not end its texts at once, or repeats itself and never does.
    const prompts = ["1+2", "5-1"].map((prompt) => tokenizer.encode(prompt));
    const maxNewTokens = options.isEndless ? 100 : 30;
    const texts = await generate(model, prompts, { maxNewTokens, stopIds: [tokenizer.eosTokenId!] });
    const least = options.isEndless ? maxNewTokens : 12;
    if (texts.some((ids) => ids.length < least || new Set(ids).size < 5)) continue;
    await saveModel(folder, model, { tokenizer });
    break;
  }
  if (options.template) await Deno.writeTextFile(join(folder, "chat_template.jinja"), options.template);
  return folder;
}

/** The text that the library continues a prompt with. */
async function expectedText(
  gpu: Gpu,
  { folder, prompt, ...options }: { folder: string; prompt: string } & GenerateOptions,
): Promise<string> {
  const { model, tokenizer } = await loadModel(gpu, folder, { trainable: false });
  using _ = model;
  const stopIds = [tokenizer.eosTokenId!];
  const [ids] = await generate(model, [tokenizer.encode(prompt)], { stopIds, ...options });
  return tokenizer.decode(ids.filter((id) => !stopIds.includes(id)), { skipSpecialTokens: true });
}

gpuTest("generate prints the new text alone; the adapter and the speed go to standard error", async (gpu) => {
  const folder = await makeModel(gpu);
  const flags = ["generate", "--model", folder, "--max-new-tokens", "40"];
  const text = await expectedText(gpu, { folder, prompt: "1+2", maxNewTokens: 40 });
  assert.ok(text.length > 5, text);
  const flagged = await keel([...flags, "--prompt", "1+2", "--stats"]);
  assert.equal(flagged.code, 0, flagged.error);
  assert.equal(flagged.out, `${text}\n`);
  assert.match(
    flagged.error,
    /^Adapter: .*\nPrefill: 3 tokens in .* tokens\/s\); decoding: [0-9]+ tokens .*\nGPU memory: .*\.\n$/,
  );
  const piped = await keel([...flags, "--prompt", "-"], { input: "1+2\n" });
  assert.equal(piped.out, `${text}\n`);
});

gpuTest("generate draws by seed, ends at stop strings, and prints JSON", async (gpu) => {
  const folder = await makeModel(gpu);
  const sampling = {
    temperature: 1.5,
    topK: 9,
    topP: 0.9,
    repetitionPenalty: 1.2,
    seed: 7,
    maxNewTokens: 30,
  };
  const text = await expectedText(gpu, { folder, prompt: "5-1", ...sampling });
  const flags = ["generate", "--model", folder, "--prompt", "5-1", "--json", "--max-new-tokens", "30"];
  const drawn = await keel([
    ...flags,
    ...[
      "--temperature",
      "1.5",
      "--top-k",
      "9",
      "--top-p",
      "0.9",
      "--repetition-penalty",
      "1.2",
      "--seed",
      "7",
    ],
  ]);
  assert.equal(drawn.code, 0, drawn.error);
  const { prompt, text: found, ids, finish } = JSON.parse(drawn.out);
  assert.deepEqual([prompt, found, finish], ["5-1", text, ids.length === 30 ? "length" : "stop"]);
  const greedy = await expectedText(gpu, { folder, prompt: "5-1", maxNewTokens: 30 });
  const stop = greedy.slice(4, 6);
  const stopped = await keel([...flags, "--stop", JSON.stringify(["never", stop])]);
  const expected = greedy.slice(0, greedy.indexOf(stop));
  assert.deepEqual([JSON.parse(stopped.out).text, JSON.parse(stopped.out).finish], [expected, "stop"]);
});

gpuTest("generation_config.json's end tokens end a text beside the tokenizer's", async (gpu) => {
  const folder = await makeModel(gpu);
  const args = ["generate", "--model", folder, "--prompt", "5-1", "--json", "--max-new-tokens", "30"];
  const { ids } = JSON.parse((await keel(args)).out);
  const file = join(folder, "generation_config.json");
  await Deno.writeTextFile(file, JSON.stringify({ eos_token_id: [999, ids[2]], temperature: 0.1 }));
  const cut = JSON.parse((await keel(args)).out);
  assert.deepEqual([cut.ids, cut.finish], [ids.slice(0, ids.indexOf(ids[2]) + 1), "stop"]);
  await Deno.writeTextFile(file, JSON.stringify({ eos_token_id: "2" }));
  const { code, error } = await keel(args);
  assert.equal(code, 1);
  assert.match(
    error,
    /generation_config\.json: eos_token_id: expected a token id or a list of them, found "2"\n$/,
  );
});

gpuTest("Ctrl-C ends a text with exit code 130", async (gpu) => {
  const folder = await makeModel(gpu, { isEndless: true });
  const args = ["generate", "--model", folder, "--prompt", "1+2", "--max-new-tokens", "30000"];
  const { code, out } = await keel(args, { interrupt: true });
  assert.equal(code, 130);
  assert.match(out, /^[0-9+:,-]+\n$/);
});

gpuTest("what cannot be generated is one line of error", async (gpu) => {
  const folder = await makeModel(gpu);
  const flags = ["generate", "--model", folder];
  const cases: [args: string[], expected: RegExp][] = [
    [[...flags, "--prompt", "-"], /expected a prompt of at least one token, found an empty one$/],
    [
      [...flags, "--prompt", "11111"],
      /at most 128 tokens, .* found 5 in prompt 0 and 256 new ones \(123 are left/,
    ],
    [[...flags, "--prompt", "1".repeat(130)], /the prompt alone is 2 too long for one\); --max-new-tokens/],
    [[...flags, "--prompt", "1", "--top-p", "1.5"], /^error: Cannot use --top-p: .*1/],
    [[...flags, "--prompt", "1", "--stop", ""], /Cannot use --stop: expected a value, found nothing$/],
    [[...flags, "--prompt", "1", "--stop", "[1]"], /Cannot use --stop: .* found "\[1\]"$/],
    [
      [...flags, "--prompt", "1", "--chat"],
      /Cannot use --chat: expected a chat template in .*, found none; without/,
    ],
    [
      [...flags, "--prompt", "1", "--system", "2"],
      /Cannot use --system: expected --chat beside it, found none$/,
    ],
    [
      ["generate", "--model", "./no/such", "--prompt", "1"],
      /^error: Cannot read the model .*no.such: .* no such folder$/,
    ],
    [
      [...flags, "--prompt", "1", "--max-new-tokens", "100", "--memory-budget-gb", "1e-5"],
      /^error: Cannot generate: expected at most 10\.5 KiB of GPU memory \(the budget\), found .* planned/,
    ],
    [["chat", "--model", folder], /Cannot chat with .*: expected a chat template .* continues plain text$/],
  ];
  for (const [args, expected] of cases) {
    const { code, out, error } = await keel(args);
    assert.equal(code, 1, `${args}`);
    assert.equal(out, "", `${args}`);
    const lines = error.trimEnd().split("\n").filter((line) => !line.startsWith("Adapter: "));
    assert.equal(lines.length, 1, error);
    assert.match(lines[0], expected);
  }
});

gpuTest(
  "chat answers line by line in the template, with what was said before, until it is reset",
  async (gpu) => {
    const folder = await makeModel(gpu, { template: TEMPLATE });
    const answer = (prompt: string) => expectedText(gpu, { folder, prompt, maxNewTokens: 9 });
    const first = await answer("1+1:");
    const second = await answer(`1+1:${first}$2+2:`);
    const third = await answer("3:");
    const { code, out, error } = await keel(
      ["chat", "--model", folder, "--max-new-tokens", "9", "--stats"],
      { input: "1+1\n\n2+2\n/what\n/reset\n3\n/exit\n4\n" },
    );
    assert.equal(code, 0, error);
    assert.equal(out, `${first}\n${second}\n${third}\n`);
    assert.match(error, /Unknown command \/what: \/reset begins anew, \/exit leaves\n/);
    // Of the second prompt only what is new was taken in: the last token of the answer, its end, and the message.
    const prefills = [...error.matchAll(/^Prefill: ([0-9]+) tokens/gm)].map(([, tokens]) => Number(tokens));
    assert.equal(prefills.length, 3);
    assert.ok(prefills[1] <= 6, `${prefills}`);
  },
);

gpuTest("chat says what it cannot answer, and goes on", async (gpu) => {
  const folder = await makeModel(gpu, { template: TEMPLATE });
  const chat = ["chat", "--model", folder, "--max-length", "12"];
  const { code, out, error } = await keel(chat, { input: "123456789012\n1\n" });
  assert.equal(code, 1);
  assert.equal(out.split("\n").length, 2, out);
  assert.match(
    error,
    /^error: Cannot answer: expected fewer than 12 tokens of conversation, found 13; \/reset/m,
  );
  const refused = await keel([...chat, "--system", "1"]);
  assert.equal(refused.code, 1);
  assert.match(refused.error, /^error: Cannot render the chat template of .*: No system here\.\n$/);
  const long = await keel(["chat", "--model", folder, "--max-length", "129"]);
  assert.match(
    long.error,
    /Cannot use --max-length: expected at most 128, as the model has positions, found 129/,
  );
});

gpuTest("Ctrl-C stops an answer, and the conversation goes on", async (gpu) => {
  const folder = await makeModel(gpu, { template: TEMPLATE, isEndless: true });
  const chat = ["chat", "--model", folder, "--max-length", "32000", "--max-new-tokens", "15000"];
  const { code, out, error } = await keel([...chat, "--stats"], {
    input: "1+2\n/exit\n",
    interrupt: true,
  });
  assert.equal(code, 0, error);
  assert.match(out, /^[0-9+:,-]+\n$/);
  assert.match(error, /^Prefill: 4 tokens /m);
});
