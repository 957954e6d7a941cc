/**
 * The whole way of a user: take a model folder from Hugging Face, train a LoRA adapter on preferences with SPO, measure
 * it, let it talk, merge it, and load what came out. Every step is one command, as README.md has it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readmeFlags } from "../docs/readme_commands.ts";
import { HAS_SHARED_DATA, SHARED_DATA } from "../shared_data.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { copyCheckpoint, DIGIT_PAIRS, succeed, TINY_CONFIGS, writeCheckpoint, writeLines } from "./user.ts";

/** Log-probs of an adapter and of the weights that it was merged into: the same sums, in another order. */
const MERGED_TOLERANCE = 1e-3;

/** A model with data that it can learn within a test. */
interface Setting {
  /** Writes or finds the model. */
  readonly model: (folder: string) => Promise<string>;
  readonly data: (folder: string) => Promise<string>;
  /** How it is trained. */
  readonly train: readonly string[];
  readonly prompt: string;
}

interface Report {
  readonly results: {
    readonly accuracy: { value: number };
    readonly logpsChosen: { value: number };
    readonly logpsRejected: { value: number };
    readonly reference: { rewardAccuracy: { value: number }; rewardMargin: { value: number } };
  };
}

function story(name: string, setting: Setting, options: { ignore?: boolean } = {}): void {
  Deno.test({
    name: `the story of ${name}`,
    ignore: options.ignore ?? false,
    fn: async (t) => {
      const folder = temporaryFolder();
      const base = await setting.model(folder);
      const data = await setting.data(folder);
      const adapter = join(folder, "run", "model");
      const merged = join(folder, "merged");
      const values = {
        ...{ "path/to/model": base, "pairs.jsonl": data, "held_out.jsonl": data },
        ...{ "runs/mine": join(folder, "run"), "runs/mine/model": adapter, "models/mine": merged },
        ...{ "Once upon a time": setting.prompt, "64": "12" },
      };
      const { step, measured } = teller(t, readmeFlags("eval", { values }), { adapter });

      await step("eval before", async () => {
        const { reference, accuracy } = await measured(base);
        assert.equal(reference.rewardAccuracy.value, 0, "against itself every reward is 0");
        assert.ok(accuracy.value >= 0 && accuracy.value <= 1);
      });
      await step("inspect, and plan", async () => {
        assert.match(await succeed("inspect", readmeFlags("inspect", { values })), /pairs/);
        const flags = [...readmeFlags("train", { values, with: "--dry-run" }), ...setting.train];
        assert.match(await succeed("train", flags), /^total /m);
        assert.ok(!existsSync(join(folder, "run")), "a plan writes nothing");
      });
      await step("train", async () => {
        await succeed("train", [
          ...readmeFlags("train", { values, without: "--dry-run" }),
          ...setting.train,
        ]);
        assert.ok(existsSync(join(adapter, "adapter_model.safetensors")), "the adapter is saved");
        assert.ok(!existsSync(join(adapter, "model.safetensors")), "and its base is not");
      });
      await step("report", async () => {
        await succeed("report", readmeFlags("report", { values }));
        assert.ok(existsSync(join(folder, "run", "report.html")));
      });
      let tuned: Report["results"] | undefined;
      await step("eval after", async () => {
        tuned = await measured(adapter);
        assert.ok(tuned.reference.rewardAccuracy.value >= 0.75, JSON.stringify(tuned.reference));
        assert.ok(tuned.reference.rewardMargin.value > 0);
      });
      const generated = (model: string) =>
        succeed("generate", readmeFlags("generate", { values: { ...values, "runs/mine/model": model } }));
      let text = "";
      await step("generate", async () => {
        text = await generated(adapter);
        assert.ok(text.trim() !== "", "a trained model must say something");
        assert.doesNotMatch(text, /Adapter:|tokens/, "standard output has the text alone");
      });
      await step("chat", async () => {
        const flags = [...readmeFlags("chat", { values }), "--max-new-tokens", "12", "--temperature", "0"];
        const reply = await succeed("chat", flags, { input: `${setting.prompt}\n` });
        assert.equal(
          reply,
          text,
          "at temperature 0 the same, as a template that adds nothing makes the same prompt",
        );
      });
      await step("merge", async () => {
        await succeed("merge", readmeFlags("merge", { values }));
        for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
          assert.ok(existsSync(join(merged, file)), file);
        }
      });
      await step("eval of the merged model", async () => {
        const found = await measured(merged);
        assert.deepEqual(found.reference.rewardAccuracy.value, tuned!.reference.rewardAccuracy.value);
        for (const key of ["logpsChosen", "logpsRejected"] as const) {
          const [value, expected] = [found[key].value, tuned![key].value];
          assert.ok(
            Math.abs(value - expected) <= MERGED_TOLERANCE * Math.abs(expected),
            `${value}, ${expected}`,
          );
        }
      });
      await step("generate with the merged model", async () => {
        assert.equal(await generated(merged), text);
      });
      await step("train on from the merged model", async () => {
        const flags = ["--max-steps", "1", "--batch-size", "2", "--output", join(folder, "again")];
        await succeed("train", ["--model", merged, "--data", data, ...flags]);
      });
    },
  });
}

/** Steps that end the story where one fails, and the measurement that several of them take. */
function teller(t: Deno.TestContext, evalFlags: readonly string[], { adapter }: { adapter: string }) {
  return {
    async step(name: string, fn: () => Promise<void>): Promise<void> {
      assert.ok(await t.step(name, fn), `the story ends at: ${name}`);
    },
    async measured(model: string): Promise<Report["results"]> {
      const flags = [...evalFlags.map((word) => word === adapter ? model : word), "--json", "--limit", "16"];
      return (JSON.parse(await succeed("eval", flags)) as Report).results;
    },
  };
}

const TINY_TRAINING = ["--max-steps", "20", "--batch-size", "8", "--learning-rate", "1e-2"];

// Where stories260K is there, it tells the story of a Llama.
for (const architecture of Object.keys(TINY_CONFIGS).filter((name) => name !== "llama" || !HAS_SHARED_DATA)) {
  story(`a generated ${architecture}`, {
    model: async (folder) => {
      await writeCheckpoint(join(folder, "base"), { architecture });
      return join(folder, "base");
    },
    data: (folder) => writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS),
    train: TINY_TRAINING,
    prompt: "3+1:",
  });
}

story("stories260K (needs shared data)", {
  model: async (folder) => {
    await copyCheckpoint(join(SHARED_DATA, "models/stories260K"), join(folder, "base"));
    return join(folder, "base");
  },
  data: async (folder) => {
    const all = join(SHARED_DATA, "preference/rasbt.instruction-data-with-preference.json");
    return await writeLines(
      join(folder, "pairs.jsonl"),
      JSON.parse(await Deno.readTextFile(all)).slice(0, 160),
    );
  },
  train: ["--max-steps", "16", "--batch-size", "8", "--learning-rate", "5e-3", "--max-length", "256"],
  prompt: "Once upon a time",
}, { ignore: !HAS_SHARED_DATA });
