/**
 * `eval` as a user meets it: what it prints and writes, and what it refuses.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parseCommandLine, parseFlags } from "../../train/command_line.ts";
import { evalFlagsSchema } from "../../train/commands/eval.ts";
import { InputError } from "../../train/errors.ts";
import { checkOutputFile } from "../../train/evaluation/files.ts";
import { chooseTask, prepareEvaluation } from "../../train/evaluation/prepare.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

/** Log-probs are sums of f32 numbers. */
const TOLERANCE = 1e-5;
const near = (found: number, expected: number) =>
  assert.ok(
    Math.abs(found - expected) <= TOLERANCE * Math.max(1, Math.abs(expected)),
    `${found}, not ${expected}`,
  );

interface Space {
  readonly folder: string;
  readonly model: string;
  readonly pairs: string;
}

async function workspace(): Promise<Space> {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  return { folder, model, pairs: await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS) };
}

const linesOf = (path: string) =>
  Deno.readTextFileSync(path).trimEnd().split("\n").map((line) => JSON.parse(line));

Deno.test("eval on preferences prints a table, or JSON with every example beside it", async () => {
  const { folder, model, pairs } = await workspace();
  const zeros = join(folder, "zeros");
  await writeCheckpoint(zeros, { scale: 0 });
  const [output, details] = [join(folder, "report.json"), join(folder, "details.jsonl")];
  const args = ["--model", zeros, "--data", pairs, "--reference", model, "--beta", "0.5"];
  const out = await succeed("eval", [...args, "--json", "--output", output, "--details", details]);
  const report = JSON.parse(out);
  assert.deepEqual(JSON.parse(await Deno.readTextFile(output)), report);
  assert.equal(report.task, "preference");
  assert.equal(report.data, pairs);
  assert.deepEqual(Object.keys(report.settings), ["maxLength", "overlong", "dtype", "reference", "beta"]);
  const { results } = report;
  assert.equal(results.pairs, 8);
  // Of a model of zeros all answers of one length are equally likely: ties, which are no success.
  assert.equal(results.accuracy.value, 0);
  near(results.logpsChosen.value, -2 * Math.log(16));
  near(results.logpsChosenPerToken.value, -Math.log(16));
  const examples = linesOf(details);
  assert.equal(examples.length, 8);
  assert.equal(examples[7].line, 8);
  const margins = examples.map((example) => example.referenceLogpsRejected - example.referenceLogpsChosen);
  near(results.reference.rewardMargin.value, 0.5 * margins.reduce((a, b) => a + b, 0) / 8);
  assert.equal(results.reference.rewardAccuracy.value, margins.filter((margin) => margin > 0).length / 8);
  const table = await succeed("eval", [...args, "--limit", "4"]);
  assert.match(table, /^preference of \S+ on \S+ \(.*beta 0\.5\)\n\nmetric/);
  assert.match(table, /\npairs +4\n/);
  assert.match(table, /\nreward accuracy +\d+\.\d % +\d+\.\d to \d+\.\d %\n/);
});

Deno.test("eval on texts prints their perplexity, and tells records from plain text", async () => {
  const { folder } = await workspace();
  const zeros = join(folder, "zeros");
  await writeCheckpoint(zeros, { scale: 0 });
  const plain = join(folder, "text.txt");
  await Deno.writeTextFile(plain, "12+34-5:".repeat(40));
  const details = join(folder, "details.jsonl");
  const evaluate = async (args: string[]) =>
    JSON.parse(await succeed("eval", ["--model", zeros, "--json", ...args]));
  const text = await evaluate([
    "--data",
    plain,
    "--max-length",
    "20",
    "--stride",
    "7",
    "--batch-tokens",
    "50",
  ]);
  assert.equal(text.task, "perplexity");
  assert.deepEqual(text.settings, { maxLength: 20, stride: 7, dtype: "f32" });
  assert.deepEqual([text.results.texts, text.results.tokens, text.results.bytes], [1, 319, 319]);
  near(text.results.perplexity, 16);
  near(text.results.bitsPerByte, 4);
  const records = await writeLines(join(folder, "texts.jsonl"), [{ text: "12" }, { text: "3+45" }]);
  const found = await evaluate(["--data", records, "--details", details]);
  assert.deepEqual([found.results.texts, found.results.tokens], [2, 4]);
  assert.deepEqual(linesOf(details).map(({ line, tokens }) => [line, tokens]), [[1, 1], [2, 3]]);
});

Deno.test("eval asks GSM8K and arithmetic, with the answers in the details", async () => {
  const { folder } = await workspace();
  const model = join(folder, "wide");
  await writeCheckpoint(model, { config: { max_position_embeddings: 256 } });
  const problem = (number: number) => ({ question: `${number}+1`, answer: `Add.\n#### ${number + 1}` });
  const data = await writeLines(join(folder, "test.jsonl"), [1, 2, 3].map(problem));
  const fewShot = await writeLines(
    join(folder, "train.jsonl"),
    Array.from({ length: 9 }, (_, i) => problem(10 + i)),
  );
  const details = join(folder, "details.jsonl");
  const rest = ["--few-shot", fewShot, "--max-new-tokens", "20", "--details", details, "--json"];
  const { code, out, error } = await runTask("eval", ["--model", model, "--data", data, ...rest]);
  assert.equal(code, 0, error);
  const report = JSON.parse(out);
  assert.equal(report.task, "gsm8k");
  assert.ok(report.settings.shots > 0 && report.settings.shots < 8, JSON.stringify(report.settings));
  assert.match(error, new RegExp(`${report.settings.shots} worked examples fit`));
  const answers = linesOf(details);
  assert.equal(answers.length, 3);
  assert.equal(answers[0].prompt.split("Question:").length, report.settings.shots + 2);
  assert.equal(answers[0].answer, "2");
  const right = answers.filter((answer) => answer.flexible.right).length;
  near(report.results.exactMatch.flexible.value, right / 3);
  const table = await succeed("eval", [
    "--model",
    model,
    "--task",
    "arithmetic",
    "--limit",
    "5",
    "--seed",
    "3",
  ]);
  assert.match(table, /^arithmetic of \S+ \(seed 3, dtype f32\)\n/);
  assert.match(table, /\nquestions +5\nexact match +\d+\.\d %/);
});

Deno.test("Ctrl-C ends eval at once, and no file is left", async () => {
  const { folder, model } = await workspace();
  const text = join(folder, "long.txt");
  await Deno.writeTextFile(text, "12+34-5\n".repeat(50_000));
  const details = join(folder, "details.jsonl");
  const args = [
    "--model",
    model,
    "--data",
    text,
    "--details",
    details,
    "--output",
    join(folder, "report.json"),
  ];
  const { code, out, error } = await runTask("eval", args, { stopAfter: "perplexity  0/400000" });
  assert.equal(code, 130, error);
  assert.match(error, /Stopped during perplexity/);
  assert.equal(out, "");
  const left = Array.from(Deno.readDirSync(folder), ({ name }) => name).toSorted();
  assert.deepEqual(left, ["long.txt", "model", "pairs.jsonl"]);
});

/** What eval says before it needs a device. */
async function refusalOf(args: readonly string[]): Promise<string> {
  try {
    const line = parseCommandLine(["eval", ...args]);
    assert.ok(!line.help);
    const flags = parseFlags(evalFlagsSchema, line);
    const task = await chooseTask(flags, line.given);
    for (const path of [flags.output, flags.details]) {
      if (path !== undefined) await checkOutputFile(path, { overwrite: flags.overwrite, flag: "--output" });
    }
    await prepareEvaluation(task, flags, { log: () => {} });
  } catch (error) {
    assert.ok(error instanceof InputError, `${error}`);
    assert.ok(!error.message.includes("\n"), error.message);
    return error.message;
  }
  return "nothing was refused";
}

function refuses(
  what: string,
  argsOf: (space: Space) => string[] | Promise<string[]>,
  expected: RegExp,
): void {
  Deno.test(`eval refuses ${what}`, async () => {
    const space = await workspace();
    assert.match(await refusalOf(await argsOf(space)), expected);
  });
}

const withLines =
  (records: unknown[], ...args: string[]) => async ({ folder, model }: Space): Promise<string[]> => [
    "--model",
    model,
    "--data",
    await writeLines(join(folder, "given.jsonl"), records),
    ...args,
  ];
const withPairs = (...args: string[]) => ({ model, pairs }: Space): string[] => [
  "--model",
  model,
  "--data",
  pairs,
  ...args,
];
const PROBLEM = { question: "1+1", answer: "#### 2" };

refuses("no model", ({ pairs }) => ["--data", pairs], /expected --model/);
refuses("no data", ({ model }) => ["--model", model], /expected --data \(or --task arithmetic/);
refuses(
  "a folder without a model",
  ({ folder, pairs }) => ["--model", folder, "--data", pairs],
  /config\.json/,
);
refuses(
  "data that is not there",
  ({ model }) => ["--model", model, "--data", "no.jsonl"],
  /no\.jsonl.*no such file/,
);
refuses(
  "data of another kind",
  ({ model }) => ["--model", model, "--data", "a.csv"],
  /expected a \.json, \.jsonl, .*file/,
);
refuses(
  "keys of no kind",
  withLines([{ input: "a", label: 1 }]),
  /given\.jsonl:1: expected "chosen" and "rejected".* found "input", "label"/,
);
refuses("no records", withLines([]), /expected records, found an empty file/);
refuses(
  "a preference without its sides",
  withLines([{ prompt: "a" }], "--task", "preference"),
  /missingChosen/,
);
refuses("a problem without answer", withLines([PROBLEM, { question: "1" }]), /given\.jsonl:2: key "answer"/);
refuses("texts as problems", withLines([{ text: "a" }], "--task", "gsm8k"), /key "question".* found nothing/);
refuses(
  "problems as texts",
  withLines([PROBLEM], "--task", "perplexity"),
  /expected "text".* found "question", "answer"/,
);
refuses(
  "a flag that the task does not read",
  withPairs("--stride", "4"),
  /--stride: .*\(perplexity\), found preference/,
);
refuses("data for generated problems", withPairs("--task", "arithmetic"), /--data: .* found arithmetic/);
refuses("beta without a reference", withPairs("--beta", "0.2"), /--beta: expected --reference/);
refuses("a limit of none", withPairs("--limit", "0"), /--limit/);
refuses("an unknown task", withPairs("--task", "mmlu"), /--task/);
refuses(
  "a prompt longer than the window",
  withPairs("--max-length", "4"),
  /pairs\.jsonl:1: expected a prompt shorter/,
);
refuses(
  "a stride without context",
  withLines([{ text: "1" }], "--max-length", "8", "--stride", "8"),
  /--stride: expected 1 to 7/,
);
refuses("shots without examples", withLines([PROBLEM], "--shots", "2"), /--shots 2: expected --few-shot/);
refuses(
  "the questions as examples",
  async (space) => {
    const args = await withLines([PROBLEM])(space);
    return [...args, "--few-shot", args[3]];
  },
  /--few-shot: expected another file than --data/,
);
refuses(
  "more shots than fit",
  async (space) => {
    const fewShot = await writeLines(join(space.folder, "train.jsonl"), [PROBLEM, PROBLEM, PROBLEM]);
    const rest = ["--few-shot", fewShot, "--shots", "3", "--max-new-tokens", "8"];
    return await withLines([PROBLEM], ...rest)(space);
  },
  /--shots 3: expected prompts of at most 56 tokens \(64 positions less 8 new tokens\), .*; 1 shots fit/,
);
refuses(
  "a reference of another vocabulary",
  async (space) => {
    const reference = join(space.folder, "reference");
    await writeCheckpoint(reference, { config: { vocab_size: 20 } });
    return withPairs("--reference", reference)(space);
  },
  /as the reference of .*: expected a vocabulary of 16, found 20/,
);
refuses(
  "a reference with another tokenizer",
  async (space) => {
    const reference = join(space.folder, "reference");
    await writeCheckpoint(reference);
    const path = join(reference, "tokenizer.json");
    const json = JSON.parse(await Deno.readTextFile(path));
    [json.model.vocab["0"], json.model.vocab["1"]] = [1, 0];
    await Deno.writeTextFile(path, JSON.stringify(json));
    return withPairs("--reference", reference)(space);
  },
  /expected the same tokenizer/,
);
refuses(
  "a file that is there",
  (space) => withPairs("--output", space.pairs)(space),
  /found one \(--overwrite replaces it\)/,
);
refuses("a folder as the file", (space) => withPairs("--output", space.folder)(space), /found a folder/);
refuses("a file in no folder", withPairs("--output", "no/such/report.json"), /expected an existing folder/);
