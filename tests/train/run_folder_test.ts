import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import project from "../../deno.json" with { type: "json" };
import { InputError } from "../../train/errors.ts";
import { LOCK_FILE } from "../../train/folder_lock.ts";
import {
  checkRunFolder,
  nextRunName,
  openMetrics,
  prepareRunFolder,
  writeJson,
  writeRunConfig,
} from "../../train/run_folder.ts";

const ON_WINDOWS = Deno.build.os === "windows";

/** Prepares a folder and lets go of it. */
async function prepare(...args: Parameters<typeof prepareRunFolder>): Promise<void> {
  (await prepareRunFolder(...args))[Symbol.dispose]();
}

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function refuses(action: Promise<unknown>, message: string): Promise<void> {
  await assert.rejects(action, (error) => {
    assert.ok(error instanceof InputError, String(error));
    assert.equal(error.message, message);
    return true;
  });
}

/** All but the lock, which stays in every folder that a run had. */
function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name !== LOCK_FILE).sort();
}

/** A finished run, as a run writes it. */
async function writeRun(folder: string): Promise<void> {
  await prepare(folder, { overwrite: false });
  await writeRunConfig(folder, { beta: 0.1 });
  await Deno.writeTextFile(join(folder, "metrics.jsonl"), "{}\n");
  await Deno.mkdir(join(folder, "model"));
  await Deno.writeTextFile(join(folder, "model", "config.json"), "{}");
}

const IN_USE = "expected a new or empty folder, found files in it " +
  "(use --overwrite to replace an earlier run, or another --output)";

Deno.test("a new folder is made with its parents; an empty one is taken", () =>
  inFolder(async (folder) => {
    const path = join(folder, "runs", "one");
    await checkRunFolder(path, { overwrite: false });
    assert.deepEqual(namesIn(folder), [], "a check changes nothing");
    await prepare(path, { overwrite: false });
    await prepare(path, { overwrite: false });
    await prepare(path, { overwrite: true });
    assert.deepEqual(namesIn(path), []);
  }));

Deno.test("an earlier run is refused without overwrite and left whole", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    await writeRun(path);
    for (const action of [checkRunFolder, prepare]) {
      await refuses(action(path, { overwrite: false }), `Cannot write to ${path}: ${IN_USE}`);
    }
    assert.deepEqual(namesIn(path), ["config.json", "metrics.jsonl", "model"]);
  }));

Deno.test("overwrite empties a run's folder, with what a killed run left; a check does not", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    await writeRun(path);
    await Deno.writeTextFile(join(path, "config.json.123.partial"), "{");
    await checkRunFolder(path, { overwrite: true });
    assert.equal(namesIn(path).length, 4);
    await prepare(path, { overwrite: true });
    assert.deepEqual(namesIn(path), []);
  }));

Deno.test("overwrite refuses a run's folder that holds something else, and removes nothing", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    await writeRun(path);
    await Deno.writeTextFile(join(path, "notes.txt"), "mine");
    const message =
      `Cannot overwrite ${path}: expected a run and nothing else, found "notes.txt" (use another --output)`;
    for (const action of [checkRunFolder, prepare]) {
      await refuses(action(path, { overwrite: true }), message);
    }
    assert.deepEqual(namesIn(path), ["config.json", "metrics.jsonl", "model", "notes.txt"]);
  }));

Deno.test("entries tells which other names a run writes", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    await writeRun(path);
    await Deno.writeTextFile(join(path, "report.md"), "");
    await prepare(path, { overwrite: true, entries: ["metrics.jsonl", "model", "report.md"] });
    assert.deepEqual(namesIn(path), []);
  }));

for (
  const [name, config] of [
    ["no config.json", undefined],
    ["a config.json of something else", '{"model_type": "llama"}'],
    ["a config.json that is no JSON", "{"],
    ["a config.json that is null", "null"],
  ] as const
) {
  Deno.test(`overwrite refuses a folder with ${name}, and removes nothing`, () =>
    inFolder(async (folder) => {
      await Deno.writeTextFile(join(folder, "metrics.jsonl"), "{}\n");
      if (config !== undefined) await Deno.writeTextFile(join(folder, "config.json"), config);
      const before = namesIn(folder);
      await refuses(
        prepare(folder, { overwrite: true }),
        `Cannot overwrite ${folder}: expected a run of Keel, found "${before[0]}" (use another --output)`,
      );
      assert.deepEqual(namesIn(folder), before);
    }));
}

Deno.test("overwrite refuses a folder whose config.json is a folder", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(join(folder, "config.json"));
    await refuses(
      prepare(folder, { overwrite: true }),
      ON_WINDOWS
        ? `Cannot read ${
          join(folder, "config.json")
        }: expected a readable file, found that permission is denied`
        : `Cannot overwrite ${folder}: expected a run of Keel, found "config.json" (use another --output)`,
    );
  }));

Deno.test({
  name: "a link in a run's folder goes, what it points to stays",
  ignore: ON_WINDOWS,
  fn: () =>
    inFolder(async (folder) => {
      const [path, mine] = [join(folder, "run"), join(folder, "mine")];
      await writeRun(path);
      await Deno.rename(join(path, "model"), mine);
      await Deno.symlink(mine, join(path, "model"));
      await prepare(path, { overwrite: true });
      assert.deepEqual([namesIn(path), namesIn(mine)], [[], ["config.json"]]);
    }),
});

Deno.test({
  name: "a file, a file among the parents, a link to nowhere",
  ignore: ON_WINDOWS,
  fn: () =>
    inFolder(async (folder) => {
      const file = join(folder, "file");
      await Deno.writeTextFile(file, "mine");
      for (const path of [file, join(file, "run"), join(file, "runs", "one")]) {
        for (const action of [checkRunFolder, prepare]) {
          await refuses(
            action(path, { overwrite: true }),
            `Cannot write to ${path}: expected a place to write, found a file where a folder is needed`,
          );
        }
      }
      const link = join(folder, "link");
      await Deno.symlink(join(folder, "nowhere"), link);
      await refuses(
        prepare(link, { overwrite: true }),
        `Cannot write to ${link}: expected a place to write, found something else of that name`,
      );
      assert.equal(await Deno.readTextFile(file), "mine");
    }),
});

Deno.test({
  name: "a folder without permission to write (not for root, who may)",
  ignore: ON_WINDOWS || Deno.uid() === 0,
  fn: () =>
    inFolder(async (folder) => {
      await Deno.chmod(folder, 0o555);
      const denied = (path: string) => {
        return `Cannot write to ${path}: expected a place to write, found that permission is denied`;
      };
      const path = join(folder, "run");
      try {
        await refuses(prepare(path, { overwrite: false }), denied(path));
        await refuses(writeJson(path, {}), denied(path));
        await refuses((async () => await openMetrics(path))(), denied(path));
      } finally {
        await Deno.chmod(folder, 0o755);
      }
    }),
});

Deno.test("a name that the file system refuses is an input error, in the system's words", () =>
  inFolder(async (folder) => {
    const path = join(folder, "x".repeat(300));
    await assert.rejects(prepare(path, { overwrite: false }), (error) => {
      assert.ok(error instanceof InputError);
      return error.message.startsWith(`Cannot write to ${path}: expected a place to write, found `);
    });
  }));

Deno.test("of two runs that saw the same free name, one gets it", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    const results = await Promise.allSettled(
      [1, 2].map(() => prepare(path, { overwrite: false })),
    );
    const reasons = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    assert.deepEqual(
      reasons.map((error) => error.message),
      [`Cannot write to ${path}: expected a place to write, found something else of that name`],
    );
  }));

Deno.test("the first free name, counting whatever is there", () =>
  inFolder(async (folder) => {
    const runs = join(folder, "runs");
    assert.equal(await nextRunName(runs, "dpo"), "dpo");
    await Deno.mkdir(join(runs, "dpo"), { recursive: true });
    await Deno.mkdir(join(runs, "dpo-3"));
    assert.equal(await nextRunName(runs, "dpo"), "dpo-2");
    await Deno.writeTextFile(join(runs, "dpo-2"), "");
    assert.equal(await nextRunName(runs, "dpo"), "dpo-4");
    if (ON_WINDOWS) return;
    const file = join(runs, "dpo-2");
    await refuses(
      nextRunName(file, "dpo"),
      `Cannot write to ${
        join(file, "dpo")
      }: expected a place to write, found a file where a folder is needed`,
    );
  }));

Deno.test("config.json carries the version before the settings", () =>
  inFolder(async (folder) => {
    await writeRunConfig(folder, { beta: 0.1, spo: { lambda: 1 } });
    assert.equal(
      await Deno.readTextFile(join(folder, "config.json")),
      `{\n  "keelVersion": "${project.version}",\n  "beta": 0.1,\n  "spo": {\n    "lambda": 1\n  }\n}\n`,
    );
    assert.deepEqual(namesIn(folder), ["config.json"]);
  }));

Deno.test("JSON into a folder that is not there is an input error", () =>
  inFolder(async (folder) => {
    const path = join(folder, "none", "config.json");
    const message = `Cannot write to ${path}: expected a place to write, found no such folder`;
    await refuses(writeJson(path, {}), message);
    await refuses((async () => await openMetrics(path))(), message);
  }));

Deno.test("a fault of the program is passed on as it is", () =>
  inFolder(async (folder) => {
    await assert.rejects(writeJson(join(folder, "a.json"), 1n), TypeError);
    assert.deepEqual(namesIn(folder), []);
  }));

Deno.test("metrics: each line is in the file before append returns, and earlier lines stay", () =>
  inFolder(async (folder) => {
    const path = join(folder, "metrics.jsonl");
    {
      using metrics = openMetrics(path);
      metrics.append({ step: 1, loss: 0.5, absent: undefined });
      assert.equal(await Deno.readTextFile(path), '{"step":1,"loss":0.5}\n');
      metrics.append({ step: 2, text: "a\nü" });
    }
    const again = openMetrics(path);
    again.append({ step: 3 });
    again.close();
    again.close();
    assert.throws(
      () => again.append({ step: 4 }),
      Deno.errors.BadResource,
      "the caller's fault stays as it is",
    );
    assert.equal(
      await Deno.readTextFile(path),
      '{"step":1,"loss":0.5}\n{"step":2,"text":"a\\nü"}\n{"step":3}\n',
    );
  }));

Deno.test("metrics: a number that JSON would turn into null is refused, and no part of its line is written", () =>
  inFolder(async (folder) => {
    const path = join(folder, "metrics.jsonl");
    using metrics = openMetrics(path);
    for (const value of [NaN, Infinity, -Infinity]) {
      assert.throws(() => metrics.append({ step: 1, grad_norm: value }), {
        name: "RangeError",
        message: `Cannot log grad_norm: expected a finite number, found ${value}`,
      });
    }
    assert.equal(await Deno.readTextFile(path), "");
  }));

/** Runs a script that knows the module under test as `run` and the path as `path`, in a process of its own. */
async function runScript(
  path: string,
  body: string,
  permissions: string[] = ["-A"],
): Promise<{ success: boolean; printed: string }> {
  const module = new URL("../../train/run_folder.ts", import.meta.url).href;
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    script,
    `import * as run from "${module}";\nconst path = Deno.args[0];\n${body}`,
  );
  const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
  const flags = ["--quiet", "--cached-only", "--no-check", "--no-prompt", "--config", config];
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flags, ...permissions, script, path],
    stderr: "null",
  }).output();
  await Deno.remove(script);
  return { success, printed: new TextDecoder().decode(stdout) };
}

Deno.test("a folder that could be emptied only in part is still known as a run", () =>
  inFolder(async (folder) => {
    const path = join(folder, "run");
    await writeRun(path);
    const { success } = await runScript(path, "await run.prepareRunFolder(path, { overwrite: true });", [
      "-R",
      "-W",
      `--deny-write=${join(path, "model")}`,
    ]);
    assert.equal(success, false);
    assert.deepEqual(namesIn(path), ["config.json", "model"]);
    await prepare(path, { overwrite: true });
    assert.deepEqual(namesIn(path), []);
  }));

Deno.test({
  name: "metrics: a full disk is an input error",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const { printed } = await runScript(
      "/dev/full",
      "try { run.openMetrics(path).append({ step: 1 }); } catch (error) { console.log(String(error)); }",
    );
    assert.equal(
      printed,
      "InputError: Cannot write to /dev/full: expected a place to write, " +
        "found No space left on device (os error 28)\n",
    );
  },
});

Deno.test("metrics: a file that was removed or replaced under way is an input error", () =>
  inFolder(async (folder) => {
    for (const [found, spoil] of [["none", undefined], ["another", ""]] as const) {
      const path = join(folder, `${found}.jsonl`);
      using metrics = openMetrics(path);
      metrics.append({ step: 1 });
      await Deno.remove(path);
      if (spoil !== undefined) await Deno.writeTextFile(path, spoil);
      await refuses(
        (async () => await metrics.append({ step: 2 }))(),
        `Cannot write to ${path}: expected the file that was opened, found ${found}`,
      );
    }
  }));

Deno.test("metrics: a killed process keeps what it logged", () =>
  inFolder(async (folder) => {
    const path = join(folder, "metrics.jsonl");
    const { success } = await runScript(
      path,
      "const metrics = run.openMetrics(path);\n" +
        'for (let step = 1; step <= 3; step++) metrics.append({ step });\nDeno.kill(Deno.pid, "SIGKILL");',
    );
    assert.equal(success, false);
    assert.equal(await Deno.readTextFile(path), '{"step":1}\n{"step":2}\n{"step":3}\n');
  }));
