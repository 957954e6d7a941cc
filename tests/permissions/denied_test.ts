/**
 * What a run cannot do: a program that tries it, with the very permissions that the launcher gives a command.
 *
 * @module
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { filesBelow } from "../faults/child.ts";
import { LAUNCHER } from "../launcher.ts";
import { DIGIT_PAIRS, runTask, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { flagsOf, type LaunchInstead } from "./launch_instead.ts";
import type { Attempt, Verdict } from "./probe.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const ON_WINDOWS = Deno.build.os === "windows";

/** Runs a program of this folder in the place of a command's; returns what it prints. */
async function instead(words: readonly string[], program: string, args: readonly string[]): Promise<string> {
  const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
  const launch: LaunchInstead = [words, path(program), args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER.slice(0, -1), path("./launch_instead.ts"), JSON.stringify(launch)],
    cwd: ROOT,
    env: { HF_TOKEN: "a secret" },
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Tries things in a process with the permissions of a command line. */
async function probe(words: readonly string[], attempts: readonly Attempt[]): Promise<Verdict[]> {
  return JSON.parse(await instead(words, "./probe.ts", [JSON.stringify(attempts)]));
}

/** A model, data and an output, each with a neighbour that is nobody's business. */
interface Workspace {
  readonly folder: string;
  readonly model: string;
  readonly data: string;
  readonly output: string;
  readonly secret: string;
}

async function workspace(): Promise<Workspace> {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  const secret = join(folder, "secret.ts");
  await Deno.writeTextFile(secret, "export const secret = 1; postMessage(secret);");
  return { folder, model, data, output: join(folder, "run"), secret };
}

const commandLines = ({ model, data, output, folder }: Workspace): string[][] => [
  ["train", "--model", model, "--data", data, "--output", output],
  ["train", "--model", model, "--data", data, "--output", output, "--inspect"],
  ["inspect", "--model", model, "--data", data],
  ["eval", "--model", model, "--data", data, "--output", join(folder, "e.json")],
  ["generate", "--model", model],
  ["chat", "--model", model],
  ["merge", "--model", model, "--output", output],
  ["report", model],
  ["bench", "--decode", "--model", model],
  ["profile", "--model", model, "--data", data],
  ["study", "--output", output, "--document", join(folder, "s.md")],
];

Deno.test("no command's process reads, writes, connects, runs or asks beyond what was named", async (t) => {
  using server = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  const space = await workspace();
  const { folder, output, model, data, secret } = space;
  const denied: Attempt[] = [
    ["read", ON_WINDOWS ? "C:\\Windows\\win.ini" : "/etc/passwd"],
    ["read", secret],
    ["read", join(model, "..", "secret.ts")],
    ["read", `${data}.bak`],
    ["list", folder],
    ["list", dirname(folder)],
    ["look", secret],
    ["read", join(ROOT, "deno.json")],
    ["read", "/proc/self/environ"],
    ["import", secret],
    ["worker", secret],
    ["write", join(folder, "beside")],
    ["write", `${output}-2`],
    ["write", join(model, "config.json")],
    ["append", data],
    ["remove", data],
    ["rename", data],
    ["makeFolder", join(folder, "new")],
    ["write", join(ROOT, "train", "cli.ts")],
    ["link", join(output, "link")],
    ["hardLink", join(output, "link")],
    ["changeMode", model],
    ["temporary", ""],
    ["temporary", folder],
    ["env", "HF_TOKEN"],
    ["env", "HOME"],
    ["env", "PATH"],
    ["allEnv", ""],
    ["setEnv", "LD_PRELOAD"],
    ["connect", `${port}`],
    ["listen", ""],
    ["unixSocket", join(output, "socket")],
    ["fetch", `http://127.0.0.1:${port}/`],
    ["resolveName", "localhost"],
    ["run", Deno.execPath()],
    ["run", "sh"],
    ["library", "libc.so.6"],
    ["library", join(model, "library.so")],
    ["pointer", ""],
    ["system", "hostname"],
    ["system", "networkInterfaces"],
    ["system", "osRelease"],
    ["kill", `${Deno.pid}`],
    ["request", "read"],
    ["request", "run"],
  ];
  for (const words of commandLines(space)) {
    await t.step(words.map((word) => word.replace(folder, "")).join(" "), async () => {
      const verdicts = await probe(words, denied);
      for (const [index, [kind, target]] of denied.entries()) {
        assert.equal(verdicts[index], "NotCapable", `${kind} ${target}: ${verdicts[index]}`);
      }
    });
  }
});

Deno.test("the same program does what was named: the attempts above fail for want of permission", async () => {
  const { folder, model, data, output } = await workspace();
  const words = ["train", "--model", model, "--data", data, "--output", output];
  const allowed: Attempt[] = [
    ["read", join(model, "config.json")],
    ["list", model],
    ["read", data],
    ["makeFolder", output],
    ["write", join(output, "metrics.jsonl")],
    ["append", join(output, "metrics.jsonl")],
    ["rename", join(output, "metrics.jsonl")],
    ["read", join(output, "metrics.jsonl.moved")],
    ["remove", join(output, "metrics.jsonl.moved")],
    ["env", "KEEL_ADAPTER_SOURCE"],
    ["system", "systemMemoryInfo"],
  ];
  assert.deepEqual(await probe(words, allowed), allowed.map(() => "done"));
  assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
    ...["model", "pairs.jsonl", "run", "secret.ts"],
  ]);
});

Deno.test("an evaluation writes its file and nothing beside it", async () => {
  const { folder, model, data } = await workspace();
  const output = join(folder, "e.json");
  const words = ["eval", "--model", model, "--data", data, "--output", output];
  const attempts: Attempt[] = [
    ["write", output],
    ["write", `${output}.PID.partial`],
    ["write", `${output}.moved`],
    ["write", `${output}.1.partial`],
    ["list", folder],
  ];
  const [own, partial, ...others] = await probe(words, attempts);
  assert.deepEqual([own, partial], ["done", "done"]);
  assert.deepEqual(new Set(others), new Set(["NotCapable"]));
});

Deno.test("a study writes its results, its page and its document", async () => {
  const { folder, output } = await workspace();
  const document = join(folder, "study.md");
  await instead(["study", "--output", output, "--document", document], "./write_study.ts", [
    output,
    document,
  ]);
  const [page, result, ...others] = await filesBelow(output);
  assert.deepEqual([page, dirname(result), others], ["report.html", "results", []]);
  assert.deepEqual(await filesBelow(join(folder, "study")), ["a_figure.svg"]);
  assert.ok((await Deno.readTextFile(document)).includes("(study/"), "its figures lie beside it");
});

Deno.test({
  name: "the real process has these very permissions: as ps shows it, in the launcher's own process",
  ignore: ON_WINDOWS,
  async fn() {
    const { model } = await workspace();
    const words = ["chat", "--model", model];
    const expected = await flagsOf(words);
    let shown = "";
    await runTask("chat", words.slice(1), {
      input: "1+1:\n",
      onStarted: async (pid) => {
        shown = new TextDecoder().decode(
          (await new Deno.Command("ps", { args: ["-ww", "-o", "args=", "-p", `${pid}`] }).output()).stdout,
        );
      },
    });
    assert.ok(shown.includes(` ${expected.join(" ")} `), `expected ${expected.join(" ")}, found ${shown}`);
    assert.ok(shown.includes("train/cli.ts chat"), shown);
    const allowed = shown.split(" ").filter((word) => word.startsWith("--allow-"));
    assert.equal(allowed.length, expected.length - 1, "and no others");
  },
});
