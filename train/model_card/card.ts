/**
 * The model card of a saved model: README.md, with the metadata that Hugging Face's hub reads in front.
 * @module
 */
import project from "../../deno.json" with { type: "json" };
import { isHubName, parseHubName } from "../hub/hub_name.ts";
import type { MetricsRecord } from "../metrics.ts";
import { formatMarkdownTable } from "../table.ts";
import { codeSpan, jsonBlock, publicPath, yamlText } from "./escape.ts";
import { CARD_STAMP } from "./files.ts";

/** What was trained on, or measured with. */
export interface CardData {
  /** `training`, `held out`. */
  readonly use: string;
  /** A file as the user named it, or what was generated. */
  readonly name: string;
  /** Of the file, in hexadecimal. */
  readonly sha256?: string;
}

/** What was minimised. */
export interface CardLoss {
  /** Names as `--loss` has them. */
  readonly names: readonly string[];
  /** Numbers on arXiv, in the order of the names. */
  readonly papers: readonly string[];
  readonly options: Readonly<Record<string, unknown>>;
}

/** How a model was trained. */
export interface CardTraining {
  readonly data: readonly CardData[];
  /** How much that is, in words: `1000 pairs`. */
  readonly counts: readonly string[];
  readonly loss: CardLoss;
  /** Its settings, where a solver was used. */
  readonly spo?: { readonly paper: string; readonly settings: Readonly<Record<string, unknown>> };
  /** Every setting that the result depends on. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** The GPU, or what stood for it. */
  readonly adapter: string;
  /** What was logged last. */
  readonly metrics?: MetricsRecord;
  /** Content of results.json, where the run has ended. */
  readonly results?: readonly object[];
}

/** What a card says. */
export interface CardFacts {
  /** What was saved: the files differ, and so does how they are loaded. */
  readonly kind: "model" | "adapter";
  /** What the model is, in a sentence of Markdown. */
  readonly summary: string;
  /** Name or folder of the model that it was made from, as the user wrote it; none where it began with random weights. */
  readonly base?: string;
  /** Other tags for the hub. */
  readonly tags?: readonly string[];
  /** Markdown of the chapter on training; made from its facts by {@link trainingChapter}. */
  readonly training?: string;
}

/**
 * Writes a card. Whatever comes from outside is quoted: it can neither end the metadata nor be Markdown. No path is shown
 * that says how folders are named on the machine.
 *
 * @param facts what it says
 * @returns Markdown
 */
export function modelCard(facts: CardFacts): string {
  const { kind, summary, base, training } = facts;
  return [
    frontMatter(facts),
    CARD_STAMP,
    `# A ${kind === "adapter" ? "LoRA adapter" : "language model"} trained with Keel`,
    summary,
    ...(base === undefined ? [] : [`Base model: ${codeSpan(publicPath(base))}.`]),
    "## How to load it",
    ...loading(facts),
    ...(training === undefined ? [] : [training.trimEnd()]),
  ].join("\n\n") + "\n";
}

/** Where the chapter on training begins: what a merged model's card has of its adapter's. */
export const TRAINING_TITLE = "## Training";

/**
 * The chapter on training.
 *
 * @param training its facts
 * @returns Markdown, from its title to the end of the card
 */
export function trainingChapter(training: CardTraining): string {
  const { data, counts, loss, spo, settings, adapter, metrics, results } = training;
  return [
    TRAINING_TITLE,
    `Trained with Keel ${project.version} on ${codeSpan(adapter)}.`,
    "### Data",
    formatMarkdownTable(
      ["use", "data", "SHA-256"],
      data.map(({ use, name, sha256 }) => [
        use,
        codeSpan(publicPath(name)),
        sha256 === undefined ? "" : codeSpan(sha256),
      ]),
    ).trimEnd(),
    ...(counts.length > 0 ? [`${counts.join(", ")}.`] : []),
    "### Loss",
    ...withSettings(`${loss.names.map(codeSpan).join(" + ")}${citation(loss.papers)}`, loss.options),
    ...(spo
      ? withSettings(`Inside Stable Preference Optimization${citation([spo.paper])}`, spo.settings)
      : []),
    "### Configuration",
    jsonBlock(settings),
    ...(metrics ? lastMetrics(metrics) : []),
    ...(results?.length ? ["### Results", resultsTable(results)] : []),
  ].join("\n\n") + "\n";
}

/** https://github.com/huggingface/hub-docs/blob/main/modelcard.md. The hub refuses a base that it does not know. */
function frontMatter({ kind, base, tags = [] }: CardFacts): string {
  const library = kind === "adapter" ? ["peft", "lora"] : ["transformers"];
  const lines = [
    "library_name: keel",
    "pipeline_tag: text-generation",
    ...(base !== undefined && isHubName(base) ? [`base_model: ${yamlText(parseHubName(base).repo)}`] : []),
    "tags:",
    ...["keel", ...library, ...tags].map((tag) => `- ${yamlText(tag)}`),
  ];
  return ["---", ...lines, "---"].join("\n");
}

function loading({ kind, base }: CardFacts): string[] {
  // Names on the hub are letters and digits, so they are safe in any language.
  const named = base !== undefined && isHubName(base) ? parseHubName(base).repo : "path/to/base";
  if (kind === "model") {
    return [
      "In Keel:",
      '```sh\ndeno task generate --model path/to/this --prompt "Once upon a time"\n```',
      "In transformers:",
      "```python\n" + [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
      ].join("\n") + "\n```",
    ];
  }
  return [
    "In Keel:",
    `\`\`\`sh\ndeno task generate --model path/to/this --base ${named} --prompt "Once upon a time"\n\`\`\``,
    "In PEFT:",
    "```python\n" + [
      "from peft import PeftModel",
      "from transformers import AutoModelForCausalLM, AutoTokenizer",
      "",
      `base = AutoModelForCausalLM.from_pretrained("${named}")`,
      'model = PeftModel.from_pretrained(base, "path/to/this")',
      'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
    ].join("\n") + "\n```",
  ];
}

function withSettings(text: string, settings: Readonly<Record<string, unknown>>): string[] {
  return Object.keys(settings).length === 0
    ? [`${text}.`]
    : [`${text}, with these settings:`, jsonBlock(settings)];
}

function citation(papers: readonly string[]): string {
  if (papers.length === 0) return "";
  return ` (${papers.map((paper) => `[arXiv ${paper}](https://arxiv.org/abs/${paper})`).join(", ")})`;
}

/** What differs from process to process says nothing of the model. */
const OF_THE_PROCESS = ["tokens_per_second", "gpu_memory_bytes"];

function lastMetrics({ phase, global_step: step, ...metrics }: MetricsRecord): string[] {
  const shown = Object.entries(metrics).flatMap(([name, value]) =>
    typeof value === "number" && !OF_THE_PROCESS.includes(name) ? [[codeSpan(name), rounded(value)]] : []
  );
  return [
    "### Last logged metrics",
    `Of ${codeSpan(String(phase))}, step ${step}, names as in \`metrics.jsonl\`:`,
    formatMarkdownTable(["metric", "value"], shown).trimEnd(),
  ];
}

/** A column per phase, a row per number, named as in results.json. */
function resultsTable(results: readonly object[]): string {
  const columns = results.map((result) => numbersOf(result));
  const names = [...new Set(columns.flatMap((column) => Object.keys(column)))];
  return formatMarkdownTable(
    ["", ...results.map((result) => codeSpan(String("phase" in result ? result.phase : "")))],
    names.map((
      name,
    ) => [codeSpan(name), ...columns.map((column) => name in column ? rounded(column[name]) : "-")]),
  ).trimEnd();
}

function numbersOf(result: object): Record<string, number> {
  const { evaluation = {}, ...own } = result as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries({ ...own, ...evaluation as object }).filter(([, value]) => typeof value === "number"),
  ) as Record<string, number>;
}

function rounded(value: number): string {
  return String(Number(value.toPrecision(6)));
}
