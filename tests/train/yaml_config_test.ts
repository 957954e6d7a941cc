import assert from "node:assert/strict";
import { join } from "node:path";
import { parseCommandLine } from "../../train/command_line.ts";
import { parseRunConfig } from "../../train/config.ts";
import { ConfigError } from "../../train/errors.ts";

function configOf(text: string, ...flags: string[]) {
  const folder = Deno.makeTempDirSync();
  const path = join(folder, "run.yaml");
  try {
    Deno.writeTextFileSync(path, text);
    const line = parseCommandLine(["train", "--config", path, ...flags]);
    assert.ok(!line.help);
    return { ...line, config: parseRunConfig(line.raw, line.source) };
  } catch (error) {
    if (error instanceof Error) error.message = error.message.replaceAll(path, "run.yaml");
    throw error;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("YAML sets what the same JSON sets, and flags override it", () => {
  const text = `# A run.
beta: 3e-1
maxSteps: 5
tune: off
output: "12"
spo: &around
  solver: penalty
  lambda: 2
`;
  const { raw, given, source } = configOf(text, "--spo.lambda", "0.5");
  assert.deepEqual(raw, {
    ...{ beta: 0.3, maxSteps: 5, tune: "off", output: "12" },
    spo: { solver: "penalty", lambda: 0.5 },
  });
  assert.deepEqual([...given].sort(), ["beta", "maxSteps", "output", "spo.lambda", "spo.solver", "tune"]);
  assert.match(source.describe(["spo", "solver"]), /run\.yaml:7:3: key spo\.solver$/);
  assert.equal(source.describe(["spo", "lambda"]), "--spo.lambda");
  assert.deepEqual(configOf('{"beta": 0.3}').raw, { beta: 0.3 }, "JSON is YAML");
});

/** Each level stands for nine of the one before. */
const BOMB = ["a: &a [x,x,x,x,x,x,x,x,x]"].concat(
  [..."bcdefghi"].map((key, index) => {
    const alias = `*${"abcdefgh"[index]}`;
    return `${key}: &${key} [${Array(9).fill(alias).join(",")}]`;
  }),
).join("\n");

const BAD: [name: string, text: string, message: RegExp][] = [
  ["unknown key", "beta: 1\nbete: 1", /^Cannot use run\.yaml:2:1: key bete: .* \(did you mean beta\?\)$/],
  ["unknown nested key", "spo:\n  lamda: 1", /^Cannot use run\.yaml:2:3: key spo\.lamda: .*spo\.lambda\?\)$/],
  ["value out of range", "beta: -1", /^Cannot use run\.yaml:1:1: key beta: expected more than 0, found -1$/],
  [
    "wrong type",
    'beta: "0.1"',
    /^Cannot use run\.yaml:1:1: key beta: expected a value of type number, found "0\.1"$/,
  ],
  ["a list", "beta: [1]", /key beta: expected a value of type number, found \[1\]$/],
  ["blank value", "beta:\n", /^Cannot use run\.yaml:1:1: key beta: expected a value, found null/],
  [
    "key twice",
    "beta: 1\nseed: 1\nbeta: 2",
    /^Cannot use run\.yaml:3:1: key beta: expected it once, found it twice$/,
  ],
  ["nested key twice", "spo:\n  rho: 1\n  rho: 2", /^Cannot use run\.yaml:3:3: key rho: expected it once/],
  ["custom tag", "beta: !js/function 1", /^Cannot read run\.yaml:1:7: malformed YAML: Unresolved tag/],
  ["binary tag", "output: !!binary aGk=", /^Cannot read run\.yaml:1:9: malformed YAML: Unresolved tag/],
  ["two documents", "beta: 1\n---\nbeta: 2", /^Cannot read run\.yaml:2:1: expected one YAML document/],
  ["merge key", "spo: &a\n  rho: 1\nlora:\n  <<: *a", /key lora\.<<: expected a known setting/],
  ["key that is no text", "? [a]\n: 1", /^Cannot read run\.yaml:1:3: malformed YAML: /],
  ["unknown alias", "beta: *b", /^Cannot read run\.yaml:1:7: expected an anchor &b before, found none$/],
  [
    "alias bomb",
    BOMB,
    /^Cannot read run\.yaml: malformed YAML: expected aliases .* at most 100 values, found more$/,
  ],
  ["bad indentation", "spo:\n  rho: 1\n rho: 2", /^Cannot read run\.yaml:3:\d+: malformed YAML: /],
  ["open quote", 'output: "a', /^Cannot read run\.yaml:1:\d+: malformed YAML: Missing closing/],
  ["list", "- beta: 1", /^Cannot read run\.yaml: expected an object of settings, found \[\{"beta":1\}\]$/],
  ["empty", "", /^Cannot read run\.yaml: expected an object of settings, found null$/],
  ["prototype", "__proto__:\n  beta: 1", /key __proto__: expected a known setting/],
];
for (const [name, text, message] of BAD) {
  Deno.test(`YAML refused: ${name}`, () => {
    assert.throws(() => configOf(text), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"), "one line");
      return true;
    });
  });
}

for (const level of ["[", "{a: "]) {
  Deno.test(`YAML refused: ten thousand levels of ${level}`, () => {
    assert.throws(() => configOf(level.repeat(10_000)), ConfigError);
  });
}

Deno.test("YAML that is missing, or a folder", () => {
  assert.throws(() => parseCommandLine(["train", "--config", "none.yml"]), {
    name: "ConfigError",
    message: "Cannot read none.yml: expected a YAML file, found no such file",
  });
});

Deno.test("a file for train serves profile and inspect, which pass over what they do not read", () => {
  const folder = Deno.makeTempDirSync();
  const path = join(folder, "run.yaml");
  Deno.writeTextFileSync(
    path,
    "model: m\ndata: d\nmaxSteps: 7\neval_strategy: steps\neval_steps: 2\noutput_dir: o\nbeta: 0.2\n",
  );
  try {
    for (
      const [command, raw] of [
        ["profile", { model: "m", data: "d", beta: 0.2 }],
        ["inspect", { model: "m", data: "d" }],
      ] as const
    ) {
      const line = parseCommandLine([command, "--config", path]);
      assert.ok(!line.help);
      assert.deepEqual(line.raw, raw);
      assert.equal(line.configFile, path);
    }
    assert.throws(
      () => parseCommandLine(["eval", "--config", path]),
      /key maxSteps: expected a known setting/,
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
