/**
 * Ctrl-C and SIGTERM in every long phase of every command, in real processes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { writeCheckpoint, writeLines } from "../story/user.ts";
import { filesBelow, keel, type Outcome, type SignalPlan } from "./child.ts";

/** From a signal to the end: a step or a batch of a tiny model, and the process's own end, on two busy cores. */
const REACTION_MS = 20_000;

/** More pairs than a batch holds: reference log-probs take long enough to be stopped. */
const PAIRS = Array.from({ length: 8_000 }, (_, index) => ({
  prompt: `${index % 1000}+1:`,
  chosen: `${index % 7}1$`,
  rejected: `${index % 9}0$`,
}));

interface Workspace {
  readonly folder: string;
  readonly model: string;
  readonly pairs: string;
  readonly output: string;
}

function stops(
  name: string,
  options: {
    args: (space: Workspace) => string[] | Promise<string[]>;
    signals: SignalPlan;
    code: number;
    check: (outcome: Outcome, space: Workspace) => void | Promise<void>;
  },
): void {
  const isMissing = Deno.build.os === "windows" && options.signals.signals.includes("SIGTERM");
  Deno.test({
    name: `stopped: ${name}`,
    ignore: isMissing,
    async fn() {
      const folder = await Deno.makeTempDir({ prefix: "keel-signals-" });
      try {
        const model = join(folder, "model");
        await writeCheckpoint(model);
        const pairs = await writeLines(join(folder, "pairs.jsonl"), PAIRS);
        const space = { folder, model, pairs, output: join(folder, "out") };
        const args = await options.args(space);
        const outcome = await keel(args, { signals: options.signals });
        assert.equal(outcome.code, options.code, outcome.text);
        assert.ok(outcome.reactionMs < REACTION_MS, `ended after ${outcome.reactionMs} ms:\n${outcome.text}`);
        assert.doesNotMatch(outcome.text, /\n {4}at /, "a stop is no crash");
        const left = await filesBelow(folder);
        assert.deepEqual(left.filter((one) => /partial|\.tmp|~$/.test(one)), [], "nothing half-written");
        await options.check(outcome, space);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

const train = ({ model, pairs, output }: Workspace, ...more: string[]) => [
  ...["train", "--model", model, "--data", pairs, "--output", output, "--tune", "off"],
  ...["--batch-size", "4", "--log-every", "1", "--max-steps", "20000", ...more],
];

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  stops(`training, by ${signal}, after the step`, {
    args: async (space) => train({ ...space, pairs: await writeLines(space.pairs, PAIRS.slice(0, 8)) }),
    signals: { after: /dpo {2}1\/20000/, signals: [signal] },
    code,
    async check({ text }, { output }) {
      const [, step] = /Stopped at dpo, step (\d+) of 20000/.exec(text)!;
      const lines = (await Deno.readTextFile(join(output, "metrics.jsonl"))).trimEnd().split("\n");
      assert.equal(JSON.parse(lines.at(-1)!).global_step, Number(step), "the step's metrics are there");
    },
  });
}

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test({
    name: `a second ${signal} ends the process at once, whatever it waits for`,
    ignore: Deno.build.os === "windows",
    async fn() {
      // Signals that come while the process is busy are one to the system: this one has nothing to do.
      const terminal = new URL("../../train/terminal.ts", import.meta.url);
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          ...["eval", "--quiet"],
          `const { stopOnSignal } = await import(${JSON.stringify(terminal)});
          const stop = stopOnSignal();
          stop.signal.addEventListener("abort", () => console.log("first"));
          setTimeout(() => console.log("never"), 60_000);
          console.log("ready");`,
        ],
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      let text = "";
      for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
        text += part;
        if (part.includes("ready") || part.includes("first")) child.kill(signal);
      }
      assert.equal((await child.status).code, code);
      assert.equal(text, "ready\nfirst\n");
    },
  });
}

stops("reference log-probs, by SIGTERM", {
  // Others than ever before: none are in the cache.
  async args(space) {
    const salt = String(Date.now() % 1e9);
    const salted = PAIRS.map((pair) => ({ ...pair, prompt: `${salt}${pair.prompt}` }));
    return train({ ...space, pairs: await writeLines(space.pairs, salted) });
  },
  signals: { after: /reference log-probs {2}/, signals: ["SIGTERM"] },
  code: 143,
  check: ({ text }) => assert.match(text, /Stopped during reference log-probs/),
});

stops("loading, by SIGTERM", {
  args: (space) => train(space),
  signals: { after: /Adapter/, signals: ["SIGTERM"] },
  code: 143,
  async check({ text }, { output }) {
    assert.match(text, /Stopped by SIGTERM/);
    assert.deepEqual(await filesBelow(output), [], "nothing is written before the run is loaded");
  },
});

stops("evaluation, by SIGTERM", {
  args: ({ model, pairs, output }) => [
    ...["eval", "--model", model, "--data", pairs, "--output", `${output}.json`, "--batch-tokens", "128"],
    ...["--task", "preference", "--tune", "off"],
  ],
  signals: { after: /\/16000/, signals: ["SIGTERM"] },
  code: 143,
  check: async ({ text }, { folder }) => {
    assert.match(text, /Stopped during/);
    assert.ok(!(await filesBelow(folder)).includes("out.json"));
  },
});

stops("decoding, by SIGTERM, which keeps what was printed", {
  async args({ folder }) {
    const model = join(folder, "long");
    await writeCheckpoint(model, { config: { max_position_embeddings: 8192 }, scale: 0 });
    return ["generate", "--model", model, "--prompt", "1+1:", "--max-new-tokens", "8000", "--stats"];
  },
  // A model that knows nothing takes the first id.
  signals: { after: /0000/, signals: ["SIGTERM"] },
  code: 143,
  check: ({ text }) => assert.match(text, /0{4}\n.*decoding/s),
});

stops("the study, by SIGTERM", {
  args: ({ output }) => ["study", "--quick", "--output", output],
  signals: { after: /seed /, signals: ["SIGTERM"] },
  code: 143,
  check: ({ text }) => assert.match(text, /Stopped/),
});
