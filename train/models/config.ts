/**
 * Hugging Face's `config.json`: which architecture a folder holds and of what size. Keys keep their spelling. Whatever
 * would change the mathematics and is not implemented is refused by name; keys that only describe are passed over.
 *
 * @module
 */
import { z } from "zod";
import { ConfigError, showFound } from "../errors.ts";
import { ARCHITECTURES, type ModelConfig } from "./registry.ts";

export type { ModelConfig } from "./registry.ts";

/**
 * Checks a configuration and fills in the defaults that transformers has.
 *
 * @param json The parsed content of config.json.
 * @param options The file it came from, for messages.
 * @returns The configuration, every field set.
 * @throws {ConfigError} Naming file, key, what was expected and what was found.
 * @example
 * ```ts
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "config.json" });
 * if (config.model_type !== "llama" || config.head_dim !== 16) throw new Error("64 hidden units in 4 heads");
 * ```
 */
export function parseModelConfig(json: unknown, options: { file: string }): ModelConfig {
  const { file } = options;
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new ConfigError(`Cannot read ${file}: expected an object, found ${showFound(json)}`);
  }
  const config = json as Record<string, unknown>;
  const quantization = config.quantization_config;
  if (quantization !== undefined && quantization !== null) {
    const method = z.object({ quant_method: z.string() }).safeParse(quantization).data?.quant_method;
    const found = `${method ?? "one"}: quantized weights cannot be trained`;
    throw new ConfigError(`Cannot read ${file}: quantization_config: expected none, found ${found}`);
  }
  const type = config.model_type;
  if (!isSupported(type)) {
    const expected = Object.keys(ARCHITECTURES).map((name) => JSON.stringify(name)).join(" or ");
    throw new ConfigError(`Cannot read ${file}: model_type: expected ${expected}, found ${showFound(type)}`);
  }
  return ARCHITECTURES[type].parse(config, file);
}

function isSupported(type: unknown): type is ModelConfig["model_type"] {
  return typeof type === "string" && Object.hasOwn(ARCHITECTURES, type);
}
