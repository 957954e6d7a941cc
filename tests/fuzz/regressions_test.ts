/**
 * What fuzzing found, input by input.
 * @module
 */
import assert from "node:assert/strict";
import { parseLoraConfig } from "../../train/adapters/lora_config.ts";
import { CheckpointError } from "../../train/errors.ts";
import { describeFileKey } from "../../train/config_file.ts";
import { parseHeader } from "../../train/models/safetensors_header.ts";

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
