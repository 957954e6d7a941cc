import assert from "node:assert/strict";
import { PAIR_LOSS_NAMES } from "../../train/losses/weighted_sum.ts";
import { join } from "node:path";
import { z } from "zod";
import { type Invocation, parseCommandLine } from "../../train/command_line.ts";
import { type CommandName, COMMANDS } from "../../train/commands/registry.ts";
import { parseRunConfig } from "../../train/config.ts";
import { ConfigError } from "../../train/errors.ts";
import { helpText } from "../../train/help.ts";
import { spoPenaltyAt, spoSchema } from "../../train/losses/spo.ts";
import { listSettings } from "../../train/settings.ts";
import { nearestName } from "../../train/suggest.ts";

function parse(...argv: string[]): Invocation {
  const line = parseCommandLine(argv);
  assert.ok(!line.help);
  return line;
}

function refuses(action: () => unknown, message: string): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.message, message);
    return true;
  });
}

/** The config that a command line gives, by the path that a run takes. */
function configOf(...flags: string[]) {
  const line = parse("train", ...flags);
  return parseRunConfig(line.raw, line.source);
}

function withFile<T>(content: string | Uint8Array, use: (path: string) => T, name = "run.json"): T {
  const folder = Deno.makeTempDirSync();
  try {
    const path = join(folder, name);
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    return use(path);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("values take the type that the schema gives them", () => {
  const line = parse(
    ...[
      "train",
      "--learning-rate",
      "5e-6",
      "--loss",
      "ipo",
      "--max-steps=7",
      "--overwrite",
      "--output",
      "12",
    ],
    ...["--length-normalize=false", "--spo.v-star", "-1.5", "--spo.solver", "penalty"],
  );
  assert.equal(line.command, "train");
  assert.deepEqual(line.raw, {
    learningRate: 5e-6,
    loss: "ipo",
    maxSteps: 7,
    overwrite: true,
    output: "12",
    lengthNormalize: false,
    spo: { vStar: -1.5, solver: "penalty" },
  });
  assert.deepEqual(
    [...line.given].sort(),
    ["learningRate", "lengthNormalize", "loss", "maxSteps", "output", "overwrite", "spo.solver", "spo.vStar"],
  );
});

Deno.test("a value with a leading dash is taken after =", () => {
  assert.deepEqual(parse("train", "--output=-a=b").raw, { output: "-a=b" });
});

Deno.test("nothing set is nothing given, and bench has its own flags", () => {
  const train = parse("train");
  assert.deepEqual([train.raw, train.given.size], [{}, 0]);
  assert.deepEqual(parse("bench", "--tiles").raw, { tiles: true });
});

Deno.test("--json and --quiet say how a command speaks, and set nothing", () => {
  const { raw, given, json, quiet } = parse("bench", "--json", "--quiet");
  assert.deepEqual([raw, given.size, json, quiet], [{}, 0, true, true]);
  assert.deepEqual([parse("bench").json, parse("bench", "--quiet=false").quiet], [false, false]);
});

Deno.test("a nested flag is known in both spellings", () => {
  for (const flag of ["--spo.lambda-schedule", "--spo.lambdaSchedule"]) {
    assert.deepEqual(parse("train", flag, "dual").raw, { spo: { lambdaSchedule: "dual" } });
  }
});

Deno.test("every setting of every command has a flag that sets it and a line in the help", () => {
  for (const command of Object.keys(COMMANDS) as CommandName[]) {
    const help = helpText(command);
    for (const setting of listSettings(COMMANDS[command].schema)) {
      const word = setting.kind === "boolean" ? `${setting.flag}=true` : `${setting.flag}=1`;
      assert.deepEqual([...parse(command, word).given], [setting.name]);
      assert.match(help, new RegExp(`^  ${setting.flag}( |$)`, "m"));
    }
    for (const [, example] of help.matchAll(/^ {2}deno task (.*)$/gm)) {
      const words = [...example.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain)
        .filter((word) => word !== "run.json" && word !== "--config");
      const line = parse(...words);
      if (line.command === "train") parseRunConfig(line.raw, line.source);
    }
  }
});

Deno.test("the help shows defaults: the schema's, each loss's, and those in words", () => {
  const help = helpText("train");
  for (
    const part of [
      "--help  ",
      "--config <path>  ",
      "steps of linear warm-up (default 0)",
      "joined by commas (default dpo)",
      "target margin as a share of beta (default: 0.5; 0.6 for alphadpo)",
      "(default: 50)",
      "<initial|track|number>",
    ]
  ) assert.ok(help.includes(part), part);
  const dual = spoPenaltyAt(spoSchema.parse({ solver: "penalty", lambdaSchedule: "dual" }), 1, 1);
  assert.ok(help.includes(`step size of the dual update (default ${dual.dualRate})`));
  assert.ok(help.split("\n").every((line) => line.length <= 110));
  assert.ok(!helpText("study").includes("--config"));
  for (const command of Object.keys(COMMANDS) as CommandName[]) {
    assert.match(helpText(command), /^ {2}--quiet +say nothing but/m);
    assert.equal(/^ {2}--json /m.test(helpText(command)), command !== "chat", "a conversation has no result");
  }
});

Deno.test("help is asked for in several ways, and wins over what is wrong elsewhere", () => {
  for (const argv of [[], ["help"], ["--help"], ["-h"]]) {
    assert.deepEqual(parseCommandLine(argv), { help: true });
  }
  for (const argv of [["help", "bench"], ["bench", "--help"], ["bench", "--bogus", "-h"]]) {
    assert.deepEqual(parseCommandLine(argv), { help: true, command: "bench" });
  }
  assert.match(helpText(), /^Usage: deno task <command> \[flags\]\n\nCommands:\n {2}train +\S/);
});

const NONE = "expected a flag of train, found none of that name";
const BAD_WORDS: [string[], string][] = [
  [["trian"], 'Cannot run "trian": expected a command, found none of that name (did you mean train?)'],
  [
    ["unheard-of"],
    `Cannot run "unheard-of": expected a command, found none of that name (known: ${
      Object.keys(COMMANDS).join(", ")
    })`,
  ],
  [["train", "--learning-rat", "1"], `Cannot use --learning-rat: ${NONE} (did you mean --learning-rate?)`],
  [["train", "--learningRate=1"], `Cannot use --learningRate: ${NONE} (did you mean --learning-rate?)`],
  [["train", "--lambda", "1"], `Cannot use --lambda: ${NONE} (did you mean --spo.lambda?)`],
  [["train", "--spo.lamdba", "1"], `Cannot use --spo.lamdba: ${NONE} (did you mean --spo.lambda?)`],
  [["train", "--output-file", "x"], `Cannot use --output-file: ${NONE} (did you mean --output?)`],
  [
    ["chat", "--json"],
    "Cannot use --json: expected a flag of chat, found none of that name (--help lists them)",
  ],
  [["train", "--bogus", "1"], `Cannot use --bogus: ${NONE} (--help lists them)`],
  [["train", "--no-overwrite"], `Cannot use --no-overwrite: ${NONE} (did you mean --overwrite?)`],
  [["train", "--__proto__", "1"], `Cannot use --__proto__: ${NONE} (--help lists them)`],
  [["train", "-beta", "1"], `Cannot use -beta: ${NONE} (did you mean --beta?)`],
  [["train", "-x"], `Cannot use -x: ${NONE} (--help lists them)`],
  [
    ["bench", "--beta", "1"],
    "Cannot use --beta: expected a flag of bench, found none of that name (--help lists them)",
  ],
  [["train", "--beta"], "Cannot use --beta: expected a value, found nothing"],
  [["train", "--beta="], "Cannot use --beta: expected a value, found nothing"],
  [
    ["train", "--beta", "--loss", "dpo"],
    "Cannot use --beta: expected a value, found --loss (for a value with a leading dash, write --beta=...)",
  ],
  [["train", "--beta", "1", "--beta", "1"], "Cannot use --beta: expected it once, found it twice"],
  [
    ["train", "--spo.lambda-end", "1", "--spo.lambdaEnd=1"],
    "Cannot use --spo.lambdaEnd: expected it once, found it twice (also as --spo.lambda-end)",
  ],
  [["train", "--config", "a", "--config", "b"], "Cannot use --config: expected it once, found it twice"],
  [["train", "data.jsonl"], 'Cannot use "data.jsonl": expected a flag, found a word of no flag'],
  [["train", "--", "--help"], 'Cannot use "--": expected a flag, found a word of no flag'],
  [
    ["train", "--overwrite", "false"],
    'Cannot use "false": expected a flag, found a word of no flag (write --overwrite=false)',
  ],
  [["train", "--overwrite=no"], 'Cannot use --overwrite: expected true or false, found "no"'],
];
for (const [argv, message] of BAD_WORDS) {
  Deno.test(`refused: ${argv.join(" ")}`, () => refuses(() => parseCommandLine(argv), message));
}

const BAD_VALUES: [string[], string][] = [
  [["--beta", "0"], "Cannot use --beta: expected more than 0, found 0"],
  [["--beta", "strong"], 'Cannot use --beta: expected a value of type number, found "strong"'],
  [["--beta", "0x1"], 'Cannot use --beta: expected a value of type number, found "0x1"'],
  [["--learning-rate", "-1"], "Cannot use --learning-rate: expected more than 0, found -1"],
  [["--max-steps", "2.5"], "Cannot use --max-steps: expected a value of type int, found 2.5"],
  [
    ["--loss", "dop"],
    `Cannot use --loss: expected one of sft, ${PAIR_LOSS_NAMES.join(", ")}, or several joined by commas, ` +
    'found "dop" (did you mean dpo?)',
  ],
  [["--label-smoothing", "0.5"], "Cannot use --label-smoothing: expected less than 0.5, found 0.5"],
  [["--spo.lambda", "-1"], "Cannot use --spo.lambda: expected at least 0, found -1"],
  [["--spo.lambdaEnd", "-1"], "Cannot use --spo.lambdaEnd: expected at least 0, found -1"],
  [
    ["--spo.rho", "1"],
    "Cannot use --spo.rho: expected solver penalty, unrolled or alternating, found settings that do not read it",
  ],
  [
    ["--loss", "sft", "--spo.solver", "penalty"],
    "Cannot use --spo.solver: expected a pairwise loss, found sft",
  ],
  [
    ["--batch-size", "3", "--gradient-accumulation-steps", "2"],
    "Cannot use --gradient-accumulation-steps: expected a divisor of the batch size 3, found 2",
  ],
];
for (const [flags, message] of BAD_VALUES) {
  Deno.test(`refused by the schema: ${flags.join(" ")}`, () => refuses(() => configOf(...flags), message));
}

Deno.test("a setting that nobody gave goes by its flag", () => {
  assert.equal(parse("train").source.describe(["spo", "vStarSteps"]), "--spo.v-star-steps");
});

Deno.test("flags override the config file, nested ones too", () => {
  const text = '\uFEFF{"beta": 0.3, "maxSteps": 5, "spo": {"solver": "penalty", "lambda": 2}}';
  withFile(text, (path) => {
    const line = parse("train", "--spo.lambda", "0.5", "--config", path, "--beta", "0.2");
    assert.deepEqual(line.raw, { beta: 0.2, maxSteps: 5, spo: { solver: "penalty", lambda: 0.5 } });
    assert.deepEqual([...line.given].sort(), ["beta", "maxSteps", "spo.lambda", "spo.solver"]);
    const { describe } = line.source;
    assert.equal(describe(["spo", "lambda"]), "--spo.lambda");
    assert.equal(describe(["spo", "solver"]), `${path}: key spo.solver`);
    assert.equal(describe(["spo"]), `${path}: key spo`);
  });
});

const BAD_FILES: [string, string | Uint8Array, (path: string) => string][] = [
  [
    "unknown key",
    '{"bete": 1}',
    (path) =>
      `Cannot use ${path}: key bete: expected a known setting, found none of that name (did you mean beta?)`,
  ],
  [
    "unknown nested key",
    '{"spo": {"lamda": 1}}',
    (path) =>
      `Cannot use ${path}: key spo.lamda: expected a known setting, found none of that name (did you mean spo.lambda?)`,
  ],
  [
    "flag's spelling",
    '{"learning-rate": 1}',
    (path) =>
      `Cannot use ${path}: key learning-rate: expected a known setting, found none of that name ` +
      "(did you mean learningRate?)",
  ],
  [
    "config in config",
    '{"config": "x.json"}',
    (path) => `Cannot use ${path}: key config: expected a known setting, found none of that name`,
  ],
  [
    "prototype",
    '{"__proto__": {}}',
    (path) => `Cannot use ${path}: key __proto__: expected a known setting, found none of that name`,
  ],
  [
    "group that is a value",
    '{"spo": 3}',
    (path) => `Cannot use ${path}: key spo: expected an object of settings, found 3`,
  ],
  [
    "key twice",
    '{"spo": {"rho": 1, "rho": 2}}',
    (path) => `Cannot use ${path}: key spo.rho: expected it once, found it twice`,
  ],
  [
    "null as a value",
    '{"beta": null}',
    (path) =>
      `Cannot use ${path}: key beta: expected a value, found null (leave the key out for its default)`,
  ],
  ["array", "[1, 2]", (path) => `Cannot read ${path}: expected an object of settings, found [1, 2]`],
  ["null", "null", (path) => `Cannot read ${path}: expected an object of settings, found null`],
  [
    "empty",
    "",
    (path) => `Cannot read ${path}:1:1: malformed JSON: expected a value, found the end of the text`,
  ],
  [
    "trailing comma",
    '{"beta": 1,\n}',
    (path) => `Cannot read ${path}:2:1: malformed JSON: expected a key in double quotes, found "}"`,
  ],
  [
    "not UTF-8",
    new Uint8Array([0x7b, 0xff]),
    (path) => `Cannot read ${path}: expected UTF-8 text, found other bytes`,
  ],
  [
    "value out of range",
    '{"spo": {"lambda": -1}}',
    (path) => `Cannot use ${path}: key spo.lambda: expected at least 0, found -1`,
  ],
  [
    "wrong type",
    '{"beta": "0.1"}',
    (path) => `Cannot use ${path}: key beta: expected a value of type number, found "0.1"`,
  ],
  [
    "group with sft",
    '{"loss": "sft", "spo": {}}',
    (path) => `Cannot use ${path}: key spo: expected a pairwise loss, found sft`,
  ],
];
for (const [name, content, message] of BAD_FILES) {
  Deno.test(`config file refused: ${name}`, () => {
    withFile(content, (path) => refuses(() => configOf("--config", path), message(path)));
  });
}

Deno.test("config file refused: missing, a folder", () => {
  const folder = Deno.makeTempDirSync();
  const missing = join(folder, "none.json");
  refuses(
    () => configOf("--config", missing),
    `Cannot read ${missing}: expected a JSON file, found no such file`,
  );
  if (Deno.build.os !== "windows") {
    refuses(
      () => configOf("--config", folder),
      `Cannot read ${folder}: expected a JSON file, found a folder`,
    );
  }
  Deno.removeSync(folder);
});

Deno.test("a value that no flag can hold is a fault of the schema", () => {
  assert.throws(() => listSettings(z.object({ sizes: z.array(z.number()) })), {
    name: "TypeError",
    message: /^Cannot make a flag of sizes: expected a single value, found \{/,
  });
});

Deno.test("suggestions: edits, swaps, the part after the dot, longer and shorter forms, none where nothing is near", () => {
  const known = ["data", "beta", "spo.solver", "spo.lambda", "learning-rate", "batch-size"];
  const pairs = [["bets", "beta"], ["btea", "beta"], ["sovler", "spo.solver"], ["spo", "spo.solver"]];
  for (const [given, expected] of [...pairs, ["learn", "learning-rate"], ["data-file", "data"]]) {
    assert.equal(nearestName(given, known), expected, given);
  }
  assert.equal(nearestName("beta22", ["beta22x", "beta2"]), "beta22x", "the first of equally near ones");
  assert.equal(nearestName("a", ["b"]), undefined, "nothing is near to a single letter");
  for (const given of ["", "x", "lr", "epochs", "temperature"]) {
    assert.equal(nearestName(given, known), undefined);
  }
});
