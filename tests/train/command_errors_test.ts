/**
 * Every mistake that a command line invites, as its process answers it: one line that says what to do, exit code 1,
 * nothing on standard output, no control characters, and nothing written.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { COMMANDS } from "../../train/commands/registry.ts";
import { LAUNCHER } from "../launcher.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const MODEL = join(ROOT, "tests/golden/tiny_llama/config.json");
/** All but the line's end; colours begin with escape. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs the command line in a folder with files to name; no variable asks for plain text. */
async function keel(words: readonly string[]): Promise<Outcome & { names: string[] }> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(FILES)) await Deno.writeTextFile(join(folder, name), text);
    for (const name of ["dir", "model"]) await Deno.mkdir(join(folder, name));
    await Deno.copyFile(MODEL, join(folder, "model/config.json"));
    for (const [name, bytes] of characterTokenizerFiles("abc$", { eos: "$" })) {
      await Deno.writeFile(join(folder, "model", name), bytes);
    }
    const args = LAUNCHER.map((word) => word.endsWith(".ts") ? join(ROOT, word) : word);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [args[0], "--config", join(ROOT, "deno.json"), ...args.slice(1), ...words],
      cwd: folder,
      env: { NO_COLOR: "" },
      stdin: "null",
    }).output();
    const names = (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
    const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { code, out, error, names };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const FILES: Readonly<Record<string, string>> = {
  "pairs.jsonl": '{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
  "broken.yaml": "beta: [1\n",
  "run.yaml": "bete: 1\n",
  "file.txt": "text\n",
};

const MISTAKES: [words: string[], message: RegExp][] = [
  // The command.
  [["trian"], /^Cannot run "trian": expected a command, .* \(did you mean train\?\)$/],
  [
    ["unheard-of"],
    /known: train, inspect, eval, generate, chat, merge, report, bench, profile, study, wgsl\)$/,
  ],
  // Flags.
  [["train", "--lerning-rate", "1"], /^Cannot use --lerning-rate: .* \(did you mean --learning-rate\?\)$/],
  [["merge", "--bogus"], /^Cannot use --bogus: expected a flag of merge, .* \(--help lists them\)$/],
  [["train", "--beta"], /^Cannot use --beta: expected a value, found nothing$/],
  [["train", "--beta", "1", "--beta", "2"], /^Cannot use --beta: expected it once, found it twice$/],
  [["train", "--beta", "much"], /^Cannot use --beta: expected a value of type number, found "much"$/],
  [["train", "--max-steps", "1.5"], /^Cannot use --max-steps: expected a value of type int, found 1\.5$/],
  [["train", "--dtype", "f8"], /^Cannot use --dtype: expected one of f32, f16, found "f8"$/],
  [["train", "--overwrite", "yes"], /^Cannot use "yes": expected a flag, found a word of no flag/],
  [
    ["train", "--num-train-epochs", "3"],
    /^Cannot use --num-train-epochs: expected maxSteps: a run counts steps/,
  ],
  [["bench", "--shape", "huge"], /^Cannot use --shape: expected one of tiny, bench, .*, found "huge"$/],
  [["study", "--seeds", "0"], /^Cannot use --seeds: expected at least 1, found 0$/],
  [
    ["generate", "--model", "dir", "--temperature=-1"],
    /^Cannot use --temperature: expected at least 0, found -1$/,
  ],
  // Flags that are missing, or do not go together.
  [["generate"], /^Cannot start: expected --model with a value, found none$/],
  [["chat"], /^Cannot start: expected --model with a value, found none$/],
  [["inspect"], /^Cannot inspect: expected --model and --data, found no --model$/],
  [["merge"], /^Cannot merge: expected --model \(an adapter\) and --output, found no --model$/],
  [["eval"], /^Cannot evaluate: expected --model with a model's folder, found none$/],
  [["report"], /^Cannot report: expected a run's folder, found none \(deno task report runs\/dpo\)$/],
  [["wgsl"], /^Cannot print a kernel: expected its name, found none \(--list names them\)$/],
  [["train", "--inspect"], /^Cannot use inspect: expected --model and --data with it, found neither$/],
  [["train", "--resume"], /^Cannot use --resume: expected --output with the folder of the run, found none$/],
  [
    ["bench", "--memory", "--json", "--markdown"],
    /^Cannot use --markdown: expected one form .* found --json/,
  ],
  [["train", "--loss", "sft", "--beta", "1"], /^Cannot use --beta: expected a pairwise loss, found sft$/],
  // Files.
  [["train", "--config", "none.yaml"], /^Cannot read none\.yaml: expected a YAML file, found no such file$/],
  [["train", "--config", "dir"], /^Cannot read dir: expected a JSON file, found a folder$/],
  [["train", "--config", "run.yaml"], /^Cannot use run\.yaml:1:1: key bete: .* \(did you mean beta\?\)$/],
  [["train", "--config", "broken.yaml"], /^Cannot read broken\.yaml:\d+:\d+: malformed YAML: /],
  [["inspect", "--model", "none", "--data", "pairs.jsonl"], /^Cannot read .*none.*: expected /],
  [["inspect", "--model", "model", "--data", "none.jsonl"], /^Cannot read .*none\.jsonl.*: /],
  [["inspect", "--model", "model", "--data", "dir"], /^Cannot read .*dir.*: /],
  [
    ["merge", "--model", "none", "--output", "new"],
    /^Cannot read the model none: expected a folder .* found no such/,
  ],
  [["merge", "--model", "file.txt", "--output", "new"], /^Cannot read the model file\.txt: .* found a file$/],
  [
    ["merge", "--model", "dir", "--output", "file.txt"],
    /^Cannot write to file\.txt: expected a folder, found a file$/,
  ],
  [
    ["report", "dir"],
    /^Cannot report on dir: expected a run's folder with metrics\.jsonl, found none there$/,
  ],
  [["report", "dir", "--output", "a.txt"], /^Cannot use --output: expected a name that ends with \.html/],
  [["study", "--document", "a.txt"], /^Cannot use --document: expected a \.md file, found a\.txt$/],
];

for (const [words, message] of MISTAKES) {
  Deno.test(`refused: ${words.join(" ")}`, async () => {
    const { code, out, error, names } = await keel(words);
    assert.match(error, /^error: .*\n$/, error);
    assert.match(error.slice("error: ".length).trimEnd(), message);
    assert.equal(code, 1);
    assert.equal(out, "");
    assert.doesNotMatch(error.trimEnd(), CONTROL);
    assert.deepEqual(names, ["dir", "model", ...Object.keys(FILES)].sort());
  });
}

for (const command of ["", ...Object.keys(COMMANDS)]) {
  Deno.test(`help without control characters: ${command}`, async () => {
    const { code, out, error } = await keel([...(command === "" ? [] : [command]), "--help"]);
    assert.deepEqual([code, error], [0, ""]);
    assert.match(out, /^Usage: deno task /);
    assert.doesNotMatch(out.replaceAll("\n", ""), CONTROL);
    const [text] = out.split("\nExamples:");
    assert.ok(text.split("\n").every((line) => line.length <= 110));
    if (command !== "") assert.match(out, /\nExamples:\n {2}deno task /);
  });
}
