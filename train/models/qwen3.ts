/**
 * The Qwen3 architecture (arXiv 2505.09388): Llama with an RMSNorm over each query and key head before the rotation, and
 * heads whose size is their own.
 * @module
 */
import { z } from "zod";
import type { Architecture } from "./architecture.ts";
import { flag, parsePart } from "./config_parts.ts";
import { llamaRelative } from "./llama.ts";
import { llamaFamilyJson, type LlamaSizes, parseLlamaSizes } from "./llama_config.ts";
import { parseQwenWindow, type QwenWindow, qwenWindow } from "./qwen2.ts";

/** A Qwen3 model's configuration, every field set. Keys as in config.json. */
export interface Qwen3Config extends LlamaSizes, QwenWindow {
  /** Tells architectures apart. */
  model_type: "qwen3";
  /** Whether the four projections of attention have biases. */
  attention_bias: boolean;
}

/**
 * Checks the configuration of a Qwen3 model; called through `parseModelConfig`.
 *
 * @param json the parsed content of config.json
 * @param file it came from, for messages
 * @returns the configuration, defaults filled in as transformers does
 * @throws {ConfigError} naming file, key, what was expected and what was found
 */
export function parseQwen3Config(json: Record<string, unknown>, file: string): Qwen3Config {
  const sizes = parseLlamaSizes(json, file, {
    neutral: { mlp_bias: false },
    hasWindow: true,
    defaults: {
      ...{ max_position_embeddings: 32768, rms_norm_eps: 1e-6, num_key_value_heads: 32, head_dim: 128 },
      ...{ bos_token_id: null, eos_token_id: null, pad_token_id: null },
    },
  });
  const { attention_bias } = parsePart(z.object({ attention_bias: flag.nullish() }), json, { file });
  return {
    model_type: "qwen3",
    ...sizes,
    ...parseQwenWindow(json, file),
    attention_bias: attention_bias ?? false,
  };
}

/**
 * @param config of a Qwen3
 * @returns its parameters and its forward pass
 */
export function qwen3Architecture(config: Qwen3Config): Architecture {
  const { attention_bias: bias } = config;
  return llamaRelative(config, {
    layout: { qkvBias: bias, outputBias: bias, mlpBias: false, headNorms: true, isFused: false },
    window: qwenWindow(config),
    configJson: ({ dtype }) => llamaFamilyJson(config, { architecture: "Qwen3ForCausalLM", dtype }),
  });
}
