import assert from "node:assert/strict";
import { join } from "node:path";
import { parse } from "yaml";
import {
  type CardFacts,
  type CardTraining,
  modelCard,
  trainingChapter,
} from "../../train/model_card/card.ts";
import { codeSpan, jsonBlock, publicPath, yamlText } from "../../train/model_card/escape.ts";
import { readCard, refuseOtherCard, writeCard } from "../../train/model_card/files.ts";
import { mergedCard } from "../../train/model_card/merged_card.ts";
import { temporaryFolder } from "../tiny_model.ts";

/** Texts that would end the metadata, a code span, a fence or a table's cell, or be Markdown or HTML. */
const HOSTILE = [
  "a: b",
  "---",
  "x\n---\nlicense: mit\n",
  "x\r\n```\n# Title",
  "`a` ``b`` ```c```",
  " `",
  "a|b\\|c",
  "<script>alert(1)</script>",
  "[x](javascript:1)",
  "# x",
  "\u0000\u0007\u007f\u0085\u2028\ufeff\ud800",
  "\u{1f600}",
  "%TAG ! &a *a !!b",
  "null",
  "'\"",
];

const TRAINING: CardTraining = {
  data: [{ use: "training", name: "pairs.jsonl", sha256: "ab".repeat(32) }],
  counts: ["10 pairs to train on"],
  loss: { names: ["dpo"], papers: ["2305.18290"], options: { beta: 0.1 } },
  spo: { paper: "2507.07723", settings: { solver: "penalty" } },
  settings: { loss: "dpo", seed: 0 },
  adapter: "llvmpipe",
  metrics: { phase: "dpo", global_step: 8, loss: 0.123456789, eval_loss: 0.5, tokens_per_second: 12 },
  results: [
    { phase: "before", isReference: true, evaluation: { logpsChosen: -2 } },
    { phase: "after", isReference: false, exactMatch: 0.5, evaluation: { logpsChosen: -1 } },
  ],
};

const FACTS: CardFacts = { kind: "model", summary: "A model.", base: "./models/llama", tags: ["dpo", "spo"] };

function metadata(card: string): Record<string, unknown> {
  const [, yaml] = /^---\n(.*?)\n---\n/s.exec(card)!;
  return parse(yaml);
}

Deno.test("the metadata is what the hub expects: a base only where it is the hub's", () => {
  const tags = ["keel", "transformers", "dpo", "spo"];
  const common = { library_name: "keel", pipeline_tag: "text-generation" };
  assert.deepEqual(metadata(modelCard(FACTS)), { ...common, tags });
  const base = "HuggingFaceTB/SmolLM2-135M@main";
  assert.deepEqual(metadata(modelCard({ ...FACTS, kind: "adapter", base, tags: [] })), {
    ...common,
    base_model: "HuggingFaceTB/SmolLM2-135M",
    tags: ["keel", "peft", "lora"],
  });
});

Deno.test("a card says what was trained, on what and how it went", () => {
  const card = modelCard({ ...FACTS, training: trainingChapter(TRAINING) });
  const lines = card.split("\n");
  for (
    const line of [
      "Base model: `./models/llama`.",
      `| training | \`pairs.jsonl\` | \`${"ab".repeat(32)}\` |`,
      "10 pairs to train on.",
      "`dpo` ([arXiv 2305.18290](https://arxiv.org/abs/2305.18290)), with these settings:",
      "Inside Stable Preference Optimization ([arXiv 2507.07723](https://arxiv.org/abs/2507.07723)), with these settings:",
      "Of `dpo`, step 8, names as in `metrics.jsonl`:",
      "| `loss`      | 0.123457 |",
      "| `eval_loss` |      0.5 |",
      "|               | `before` | `after` |",
      "| `logpsChosen` |       -2 |      -1 |",
      "| `exactMatch`  |        - |     0.5 |",
    ]
  ) {
    assert.ok(lines.includes(line), `${line}\n\n${card}`);
  }
  assert.match(card, /^Trained with Keel [0-9.]+ on `llvmpipe`\.$/m);
  assert.doesNotMatch(card, /tokens_per_second/);
});

Deno.test("texts from outside stay texts, wherever they stand", () => {
  const plain = modelCard({ ...FACTS, training: trainingChapter(TRAINING) });
  const outline = (card: string) => {
    const outside = card.replaceAll(/^(`{3,})[a-z]*\n.*?\n\1$/gms, "(code)");
    return outside.replaceAll(/(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)/g, "(span)").replaceAll(/ {2,}|-{3,}/g, " ");
  };
  for (const text of HOSTILE) {
    const card = modelCard({
      ...FACTS,
      base: text,
      training: trainingChapter({
        ...TRAINING,
        data: [{ use: "training", name: text, sha256: "ab" }],
        settings: { [text]: text },
        loss: { ...TRAINING.loss, options: { text } },
        adapter: text,
        metrics: { ...TRAINING.metrics, phase: text },
      }),
    });
    assert.deepEqual(metadata(card), metadata(plain), text);
    assert.equal(outline(card), outline(plain), text);
    assert.deepEqual(parse(yamlText(text)), text.toWellFormed(), text);
    assert.ok(!/[\n\r]/.test(codeSpan(text)) && !/[\n\r]/.test(yamlText(text)));
    const block = jsonBlock(text).split("\n");
    assert.deepEqual(JSON.parse(block.slice(1, -1).join("\n")), text);
    assert.equal(
      block.filter((line) => line.startsWith(block.at(-1)!)).length,
      2,
      "the fence opens and closes",
    );
  }
});

Deno.test("the same settings are the same text, in whatever order they come", () => {
  const [a, b] = [{ beta: 1, spo: { rho: 1, lambda: [2, 1] } }, { spo: { lambda: [2, 1], rho: 1 }, beta: 1 }];
  assert.equal(jsonBlock(a), jsonBlock(b));
  assert.deepEqual(JSON.parse(jsonBlock(a).split("\n").slice(1, -1).join("\n")), a);
});

Deno.test("no path tells how folders are named on the machine", () => {
  const paths: Record<string, string> = {
    "data/pairs.jsonl": "data/pairs.jsonl",
    "./pairs.jsonl": "./pairs.jsonl",
    "owner/name@main": "owner/name@main",
    "a..b/c": "a..b/c",
    "/home/ada/pairs.jsonl": "pairs.jsonl",
    "/home/ada/models/": "models",
    "../ada/pairs.jsonl": "pairs.jsonl",
    "x/../../ada/pairs.jsonl": "pairs.jsonl",
    "~/pairs.jsonl": "pairs.jsonl",
    "C:\\Users\\ada\\pairs.jsonl": "pairs.jsonl",
    "\\\\host\\share\\pairs.jsonl": "pairs.jsonl",
    "file:///home/ada/pairs.jsonl": "pairs.jsonl",
    "/": "/",
  };
  for (const [path, shown] of Object.entries(paths)) assert.equal(publicPath(path), shown, path);
});

Deno.test("a card replaces a card, and no one's own text", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "README.md");
  await refuseOtherCard(join(folder, "not-there"));
  assert.equal(await readCard(folder), undefined);
  await writeCard(folder, modelCard(FACTS));
  await writeCard(folder, modelCard({ ...FACTS, summary: "Another." }));
  assert.match(await readCard(folder) ?? "", /^Another\.$/m);
  const own = modelCard(FACTS).replace(/^<!--.*\n/m, "");
  await Deno.writeTextFile(path, own);
  for (const write of [() => writeCard(folder, modelCard(FACTS)), () => refuseOtherCard(folder)]) {
    await assert.rejects(
      write,
      /^InputError: Cannot write .*README\.md: expected no file or a card of Keel's, found /,
    );
  }
  assert.equal(await Deno.readTextFile(path), own);
  assert.equal(await readCard(folder), undefined);
});

Deno.test("a merged model's card has its adapter's chapter on training", () => {
  const training = trainingChapter(TRAINING);
  const adapter = modelCard({ ...FACTS, kind: "adapter", training });
  const card = mergedCard({ adapter: "/home/ada/adapter" }, { base: "models/llama", card: adapter });
  assert.ok(card.endsWith(training));
  assert.match(card, /^The LoRA adapter `adapter`, merged into its base: /m);
  assert.match(card, /AutoModelForCausalLM\.from_pretrained\("path\/to\/this"\)/);
  assert.deepEqual(metadata(card).tags, ["keel", "transformers"]);
  assert.doesNotMatch(mergedCard({ adapter: "a" }, { base: null }), /## Training|Base model/);
});
