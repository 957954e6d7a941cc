/**
 * What fuzzing found, input by input.
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parseLoraConfig } from "../../train/adapters/lora_config.ts";
import { CheckpointError } from "../../train/errors.ts";
import { readRows } from "../../train/data/readers.ts";
import { describeFileKey } from "../../train/config_file.ts";
import { parseHeader } from "../../train/models/safetensors_header.ts";
import { seededRandom } from "../reference/random.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { mutateBytes } from "./mutate.ts";

const isShort = (error: Error) => error instanceof CheckpointError && error.message.length < 500;
const LONG = "x".repeat(20_000);

Deno.test("a tensor's name as long as the header is cut in the message", () => {
  const json = new TextEncoder().encode(JSON.stringify({ [LONG]: 1 }));
  assert.throws(() => parseHeader(json, { file: "a.safetensors", fileBytes: 8 + json.length }), isShort);
});

Deno.test("an unknown key as long as adapter_config.json is cut in the message", () => {
  const json = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj"], [LONG]: 1 };
  assert.throws(() => parseLoraConfig(json, "adapter_config.json"), isShort);
});

Deno.test("an unknown key as long as a run's config file is cut in the message", () => {
  assert.ok(describeFileKey("run.json", LONG).length < 500);
});

Deno.test("a Parquet page whose header has lost its size is refused", async () => {
  const fixture = new URL("../data/fixtures/pairs_brotli.parquet", import.meta.url);
  const path = join(temporaryFolder(), "data.parquet");
  // Input 315 of seed 4: hyparquet's place in the file is then not a number, and it reads one byte for ever.
  await Deno.writeFile(path, mutateBytes(await Deno.readFile(fixture), seededRandom(4_000_327)));
  await assert.rejects(Array.fromAsync(readRows(path)), { name: "DataError" });
});
