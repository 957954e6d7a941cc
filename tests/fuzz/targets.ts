/**
 * The readers of files from strangers, each with whole files to damage.
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { openPlanningGpu } from "../../engine/planning_gpu.ts";
import { GPU_TILE, LARGE_TILE } from "../../shaders/tile.ts";
import { parseLoraConfig } from "../../train/adapters/lora_config.ts";
import { COMMON_CARD } from "../../train/bench/memory.ts";
import { parseRunConfig, runConfigSchema } from "../../train/config.ts";
import { readConfigFile } from "../../train/config_file.ts";
import { gatherSettings, nestSettings } from "../../train/given_settings.ts";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { createChatTemplate, renderChat } from "../../train/data/chat_template.ts";
import { readRows } from "../../train/data/readers.ts";
import { readPreferences } from "../../train/data/preference_files.ts";
import { createTokenizer } from "../../train/data/tokenizer.ts";
import { parseCheckpointIndex } from "../../train/models/checkpoint_index.ts";
import { readModelConfig } from "../../train/models/config_file.ts";
import { parseHeader } from "../../train/models/safetensors_header.ts";
import { readRun } from "../../train/report/read_run.ts";
import { listSettings } from "../../train/settings.ts";
import { openCells } from "../../train/study/cells.ts";
import { InputError } from "../../train/errors.ts";
import { tuneFromCache } from "../../train/tune_cache.ts";
import { readAdapterConfig } from "../../train/adapters/adapter_config.ts";
import { HEADER, INDEX } from "./checkpoint_texts.ts";
import type { FuzzTarget } from "./harness.ts";
import { mutateBytes, mutateText, mutateValue } from "./mutate.ts";

const RECORDS = [
  { prompt: "1+1=", chosen: "2", rejected: "3", margin: 0.5 },
  { prompt: "1+2=", chosen: "3", rejected: "2", margin: 1 },
];
const RUN = { model: "m", data: "d.jsonl", loss: "dpo", beta: 0.1, learningRate: 1e-5, maxSteps: 3 };
const METRICS = [{ global_step: 1, phase: "dpo", loss: 0.5 }, { global_step: 2, phase: "dpo", loss: 0.25 }];
const TEMPLATE =
  "{% for message in messages %}<|{{ message['role'] }}|>{{ message.content | trim }}\n{% endfor %}" +
  "{% if add_generation_prompt %}<|assistant|>{% endif %}";

/** Damages a value, or its text. */
function damaged(value: Record<string, unknown>, random: () => number): string {
  return random() < 0.5
    ? mutateText(JSON.stringify(value), random)
    : JSON.stringify(mutateValue(value, random));
}

/** What a tuner may choose here. */
const CANDIDATES = { "64x64": { tile: GPU_TILE, splitTo: 0 }, "128x128": { tile: LARGE_TILE, splitTo: 0 } };
const KNOWN_PLANS = ["built in", ...Object.keys(CANDIDATES)];
const SMALL = { m: 8, n: 8, k: 8 };
/** Those of workgroups too, by which it is told which candidates fit. */
const LIMITS = { ...COMMON_CARD.limits, maxComputeWorkgroupSizeX: 1024, maxComputeWorkgroupSizeY: 1024 };

/** The tuner's cache, as a card that computes nothing has it: a damaged file is measured anew, and written again. */
async function tuneCacheTarget(folder: string): Promise<FuzzTarget> {
  const tune = async () => {
    using gpu = openPlanningGpu({ ...COMMON_CARD, limits: LIMITS });
    const shapes = { large: SMALL, narrow: SMALL, deep: SMALL };
    return (await tuneFromCache(gpu, { folder, candidates: CANDIDATES, shapes, sampleMs: 0 }))!;
  };
  await tune();
  const [{ name }] = [...Deno.readDirSync(folder)];
  const path = join(folder, name);
  const { key, choice } = JSON.parse(Deno.readTextFileSync(path));
  const names = Object.keys(choice);
  const good = JSON.stringify({ key, choice: Object.fromEntries(names.map((one) => [one, "64x64"])) });
  return {
    name: "tuner's cache",
    async attempt(random) {
      Deno.writeTextFileSync(path, random() < 0.1 ? good : damaged(JSON.parse(good), random));
      const found = await tune();
      assert.deepEqual(Object.keys(found.choice).sort(), names.toSorted());
      for (const plan of Object.values(found.choice)) assert.ok(KNOWN_PLANS.includes(plan), plan);
      // Whatever it was: what is there now is what was used.
      const written = JSON.parse(Deno.readTextFileSync(path));
      assert.deepEqual([written.key, written.choice], [key, found.choice]);
      if (found.isMeasured) throw new InputError("Cannot use the tuner's cache: it is measured anew");
    },
  };
}

/** @returns the targets, whose files go into a folder of the caller's */
export async function fuzzTargets(folder: string): Promise<FuzzTarget[]> {
  const settings = listSettings(runConfigSchema);
  const golden = (name: string) => new URL(`../golden/models/${name}`, import.meta.url);
  const config = JSON.parse(await Deno.readTextFile(golden("qwen2/config.json")));
  const lora = JSON.parse(await Deno.readTextFile(golden("llama3_qv_lora/adapter_config.json")));
  const parquet = await Deno.readFile(new URL("../data/fixtures/pairs_snappy.parquet", import.meta.url));
  const tokenizer = characterTokenizerFiles("01+", { eos: "." });
  const parseText = (text: string) => new TextDecoder().decode(tokenizer.get(text)!);
  const write = (name: string, content: string | Uint8Array) => {
    const path = join(folder, name);
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    return path;
  };
  const data = (name: string, make: (random: () => number) => string | Uint8Array): FuzzTarget => ({
    name,
    async attempt(random) {
      const path = write(name, make(random));
      if (random() < 0.5) await readPreferences(path);
      else await Array.fromAsync(readRows(path));
    },
  });
  const lines = RECORDS.map((record) => JSON.stringify(record));
  const cells = openCells(folder, { adapter: "fuzz" });
  return [
    {
      name: "safetensors header",
      attempt(random) {
        const json = new TextEncoder().encode(mutateText(HEADER, random));
        parseHeader(json, { file: "model.safetensors", fileBytes: 8 + json.length + 32 });
      },
    },
    {
      name: "index.json",
      attempt(random) {
        const { weightMap } = parseCheckpointIndex(mutateText(INDEX, random), { file: "index.json" });
        for (const name of weightMap.values()) assert.match(name, /^[^/\\:\0]+\.safetensors$/);
      },
    },
    {
      name: "config.json",
      async attempt(random) {
        write("config.json", damaged(config, random));
        await readModelConfig(folder);
      },
    },
    {
      name: "adapter_config.json",
      async attempt(random) {
        if (random() < 0.3) return void parseLoraConfig(mutateValue(lora, random), "adapter_config.json");
        write("adapter_config.json", damaged(lora, random));
        await readAdapterConfig(folder);
      },
    },
    {
      name: "tokenizer.json",
      attempt(random) {
        const files = new Map(tokenizer);
        const value = JSON.parse(parseText("tokenizer.json"));
        files.set("tokenizer.json", new TextEncoder().encode(damaged(value, random)));
        createTokenizer(files, { source: "fuzz" }).encode("0+1");
      },
    },
    data("data.jsonl", (random) => mutateText(lines.join("\n"), random)),
    data("data.json", (random) => mutateText(`[${lines.join()}]`, random)),
    data("data.jsonl.gz", (random) => mutateBytes(gzipSync(lines.join("\n")), random)),
    data("data.parquet", (random) => mutateBytes(parquet, random)),
    {
      name: "run config",
      attempt(random) {
        const text = damaged(RUN, random);
        // JSON is YAML, too.
        const path = write(random() < 0.5 ? "run.json" : "run.yaml", text);
        const raw = nestSettings(gatherSettings(readConfigFile(path, { settings, takesOptionNames: true })));
        parseRunConfig(raw, { describe: (key) => key.join(".") });
      },
    },
    {
      name: "chat template",
      attempt(random) {
        const template = createChatTemplate(mutateText(TEMPLATE, random), { source: "fuzz" });
        renderChat(template, [{ role: "user", content: "a" }]);
      },
    },
    {
      name: "metrics.jsonl",
      async attempt(random) {
        write(
          "metrics.jsonl",
          mutateText(METRICS.map((line) => JSON.stringify(line)).join("\n") + "\n", random),
        );
        Deno.writeTextFileSync(join(folder, "config.json"), "{}");
        await readRun(folder);
      },
    },
    {
      name: "study cell",
      async attempt(random) {
        await cells.keep({ seed: 1 }, { loss: 1 });
        const path = cells.path({ seed: 1 });
        Deno.writeTextFileSync(path, mutateText(Deno.readTextFileSync(path), random));
        await cells.find({ seed: 1 });
      },
    },
    await tuneCacheTarget(join(folder, "tuning")),
  ];
}
