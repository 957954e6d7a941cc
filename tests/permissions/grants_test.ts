/**
 * From flags to permissions, without processes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { partialName } from "../../train/atomic_file.ts";
import { partialFolders } from "../../train/atomic_folder.ts";
import { parseCommandLine, parseFlags } from "../../train/command_line.ts";
import type { Command } from "../../train/commands/command.ts";
import { type CommandName, COMMANDS } from "../../train/commands/registry.ts";
import { TEXTS } from "../../train/help.ts";
import { ConfigError } from "../../train/errors.ts";
import { type Grants, grantsOf, type Machine, permissionFlags } from "../../train/launch/grants.ts";
import { listSettings } from "../../train/settings.ts";

const NAMES = Object.keys(COMMANDS) as CommandName[];
const MACHINE: Machine = {
  cacheFolder: "/cache/keel",
  models: new Map(),
  usesHub: false,
  modules: ["/keel/train"],
  exists: () => true,
};
const TUNING = "/cache/keel/tuning";
const REFERENCE = "/cache/keel/reference-logps";
const CACHE_ENV = Deno.build.os === "windows" ? "LOCALAPPDATA" : "XDG_CACHE_HOME";
const OF_GPU = {
  env: ["DENO_WEBGPU_BACKEND", "KEEL_ADAPTER_SOURCE", CACHE_ENV],
  sys: ["homedir", "systemMemoryInfo"],
  ffi: [],
  net: [],
};
const NOTHING = { read: [], write: [], env: [], sys: [], ffi: [], net: [] };

async function grants(words: string[], machine: Partial<Machine> = {}): Promise<Grants> {
  const line = parseCommandLine(words);
  assert.ok(!line.help);
  const command: Command = COMMANDS[line.command];
  const settings = await (command.settle?.(line) ?? parseFlags(command.schema, line));
  return grantsOf(
    { access: command.access, settings, words: line.words, config: line.configFile },
    { ...MACHINE, ...machine },
  );
}

const both = (path: string) => [path, partialName(path)];

const TABLE: [string[], Grants][] = [
  [["train", "--model", "m", "--data", "a.jsonl,b.jsonl", "--eval-data", "e.jsonl", "--output", "out"], {
    ...{ ...OF_GPU, read: ["m", "a.jsonl", "b.jsonl", "e.jsonl", "out", TUNING, REFERENCE] },
    write: ["out", TUNING, REFERENCE],
  }],
  [["train", "--model", "m", "--base", "b", "--data", "a", "--output", "out", "--dry-run"], {
    ...{ ...OF_GPU, read: ["m", "b", "a", "out", TUNING, REFERENCE] },
    write: [TUNING, REFERENCE],
  }],
  [["train", "--model", "m", "--data", "a", "--output", "out", "--dashboard"], {
    ...{ ...OF_GPU, read: ["m", "a", "out", TUNING, REFERENCE, "/keel/train"], net: ["127.0.0.1"] },
    write: ["out", TUNING, REFERENCE],
  }],
  [["train", "--model", "m", "--data", "a", "--output", "out", "--dashboard", "--dashboard-port", "8000"], {
    ...{ ...OF_GPU, read: ["m", "a", "out", TUNING, REFERENCE, "/keel/train"], net: ["127.0.0.1:8000"] },
    write: ["out", TUNING, REFERENCE],
  }],
  [["train", "--model", "m", "--data", "a", "--output", "out", "--inspect"], {
    ...NOTHING,
    read: ["m", "a", "out"],
  }],
  [["inspect", "--model", "m", "--data", "a,b"], { ...NOTHING, read: ["m", "a", "b"] }],
  [
    [
      ...["eval", "--model", "m", "--reference", "r", "--data", "a", "--few-shot", "f"],
      ...["--output", "o/e.json", "--details", "o/d.jsonl"],
    ],
    {
      ...{ ...OF_GPU },
      read: ["m", "r", "a", "f", ...both("o/e.json"), ...both("o/d.jsonl"), TUNING],
      write: [...both("o/e.json"), ...both("o/d.jsonl"), TUNING],
    },
  ],
  [["generate", "--model", "m", "--prompt", "/etc/passwd"], {
    ...{ ...OF_GPU, read: ["m", TUNING], write: [TUNING] },
  }],
  [["chat", "--model", "m", "--base", "b"], {
    ...{ ...OF_GPU, read: ["m", "b", TUNING], write: [TUNING] },
  }],
  [["merge", "--model", "m", "--output", "o/out"], {
    ...NOTHING,
    read: ["m", join("o", "out"), ...Object.values(partialFolders(join("o", "out")))],
    write: [join("o", "out"), ...Object.values(partialFolders(join("o", "out")))],
  }],
  [["report", "runs/a", "runs/b"], {
    ...NOTHING,
    read: [...both(join("runs/a", "report.html")), "runs/a", "runs/b"],
    write: both(join("runs/a", "report.html")),
  }],
  [["report", "runs/a", "--output", "r.html"], {
    ...NOTHING,
    read: [...both("r.html"), "runs/a"],
    write: both("r.html"),
  }],
  [["bench"], {
    ...{ ...OF_GPU, read: [TUNING], write: [TUNING] },
    sys: [...OF_GPU.sys, "cpus", "loadavg"],
  }],
  [["bench", "--memory"], NOTHING],
  [["profile", "--model", "m", "--data", "a", "--spo.sft-data", "s"], {
    ...{ ...OF_GPU, read: ["m", "a", "s", TUNING], write: [TUNING] },
    sys: [...OF_GPU.sys, "cpus", "loadavg"],
  }],
  [["study"], { ...{ ...OF_GPU }, read: ["runs/study", TUNING], write: ["runs/study", TUNING] }],
  [["study", "--document", "docs/study.md"], {
    ...{ ...OF_GPU },
    read: ["runs/study", ...both("docs/study.md"), join("docs", "study"), TUNING],
    write: ["runs/study", ...both("docs/study.md"), join("docs", "study"), TUNING],
  }],
  [["wgsl", "rope", "--set", "width=4"], NOTHING],
];

for (const [words, expected] of TABLE) {
  Deno.test(`permissions of: ${words.join(" ")}`, async () => {
    assert.deepEqual(await grants(words), expected);
  });
}

Deno.test("a file of settings is read, and a YAML one lets its parser look at two variables", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, env] of [["a.json", []], ["a.yaml", ["LOG_STREAM", "LOG_TOKENS"]]] as const) {
      const config = join(folder, name);
      await Deno.writeTextFile(config, '{"model": "m", "output": "out"}');
      const folders = ["out", ...Object.values(partialFolders("out"))];
      const expected = { ...NOTHING, read: ["m", ...folders, config], write: folders, env: [...env] };
      assert.deepEqual(await grants(["merge", "--config", config]), expected);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the table has every command", () => {
  assert.deepEqual(new Set(TABLE.map(([[command]]) => command)), new Set(NAMES));
});

Deno.test("every flag that takes a text is declared a place or a text, and nothing else is", () => {
  for (const name of NAMES) {
    const { schema, access }: Command = COMMANDS[name];
    const settings = listSettings(schema);
    const texts = settings.filter(({ kind }) => kind === "text").map((setting) => setting.name);
    const places = Object.keys(access.paths);
    for (const text of texts) {
      assert.ok(
        places.includes(text) !== Object.hasOwn(TEXTS, text),
        `${name}: ${text} belongs into the command's access.paths, or into TEXTS of train/help.ts`,
      );
    }
    for (const place of places) assert.ok(texts.includes(place), `${name}: no flag ${place} takes a path`);
  }
});

Deno.test("libraries are loaded from the software driver's folder, and only where it is used", async () => {
  const driverFolder = "/cache/keel/software_driver/debian-12-x86_64";
  const { ffi, read, write, env } = await grants(["generate", "--model", "m"], { driverFolder });
  assert.deepEqual([ffi, read, write], [[driverFolder], ["m", TUNING, driverFolder], [TUNING]]);
  assert.deepEqual(env, [...OF_GPU.env, "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "XDG_RUNTIME_DIR"]);
  assert.deepEqual((await grants(["inspect", "--model", "m", "--data", "a"], { driverFolder })).ffi, []);
  assert.deepEqual((await grants(["bench", "--memory"], { driverFolder })).ffi, []);
});

Deno.test("a model of the hub adds its part of the cache and what tells where that is, and no token", async () => {
  const models = new Map([["owner/name", ["owner/name", "/hub/models--owner--name"]]]);
  const { read, env } = await grants(["inspect", "--model", "owner/name", "--data", "a"], {
    models,
    usesHub: true,
  });
  assert.deepEqual(read, ["owner/name", "/hub/models--owner--name", "a"]);
  assert.ok(env.includes("HF_HUB_CACHE"));
  assert.ok(env.every((name) => !name.includes("TOKEN") && !name.includes("*")));
});

Deno.test("of the way to an output only what is not there yet may be made", async () => {
  const here = new Set(["/", "/data", "/data/runs"]);
  const written = async (output: string) =>
    (await grants(["merge", "--model", "m", "--output", output], { exists: (path) => here.has(path) })).write;
  const merged = ["/data/runs/a", ...Object.values(partialFolders("/data/runs/a"))];
  assert.deepEqual(await written("/data/runs/a"), merged);
  assert.deepEqual(await written("/data/new/deep/a"), ["/data/new"]);
});

Deno.test("flags name every path in full; a kind of which nothing is granted has no flag", () => {
  assert.deepEqual(
    permissionFlags({ ...NOTHING, read: ["a b", "/etc/x"], env: ["HOME"], sys: ["cpus"] }, "/home/me"),
    ["--no-prompt", "--allow-read=/home/me/a b,/etc/x", "--allow-env=HOME", "--allow-sys=cpus"],
  );
  assert.deepEqual(permissionFlags(NOTHING, "/"), ["--no-prompt"]);
});

Deno.test("a comma that Deno would end a path at is kept out of its lists, or refused", () => {
  const flags = (path: string) => permissionFlags({ ...NOTHING, read: [path] }, "/home/a,b/keel");
  assert.deepEqual(flags("runs/x"), ["--no-prompt", "--allow-read=runs/x"]);
  assert.deepEqual(flags("/home/a,b/models/m"), ["--no-prompt", "--allow-read=../models/m"]);
  for (const path of ["runs/x,/etc", "/data/c,d", "/home/a,b/keel"]) {
    assert.throws(() => flags(path), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /^Cannot use .*: expected a path without a comma/);
      return true;
    });
  }
});

Deno.test("every task of a command starts the launcher, with one set of permissions that writes and runs nothing", () => {
  const tasks: Record<string, { command: string }> = project.tasks;
  for (const name of NAMES) {
    assert.equal(
      tasks[name].command,
      project.tasks.train.command.replace(/ train$/, ` ${name}`),
      "all tasks of commands start alike",
    );
  }
  const words = project.tasks.train.command.split(" ");
  assert.deepEqual(words.at(-2), "train/launch.ts");
  for (const word of words) {
    assert.doesNotMatch(word, /^(-A|-W|-N|-E$|-S$|--allow-(all|write|run|net|env$|sys$))/, word);
  }
});

Deno.test("other tasks name what they take; only those that start programs may, and only tests have the loopback net", () => {
  const tasks = Object.entries(project.tasks);
  const withFlag = (flag: RegExp) =>
    tasks.filter(([, { command }]) => flag.test(command)).map(([name]) => name);
  assert.deepEqual(withFlag(/ (-A|--allow-all)\b/), []);
  assert.deepEqual(withFlag(/ --allow-run/), ["test", "torture", "test:doc"]);
  assert.deepEqual(withFlag(/ (-E|--allow-env|-S|--allow-sys)( |$)/), ["test", "test:long", "test:doc"]);
  assert.deepEqual(withFlag(/ (-W|--allow-write)\b/), ["test", "test:long", "torture", "fuzz", "test:doc"]);
  assert.deepEqual(withFlag(/ (-N|--allow-net)/), ["test"]);
  assert.match(project.tasks.test.command, / --allow-net=127\.0\.0\.1 /);
});
