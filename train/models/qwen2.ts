/**
 * The Qwen2 architecture (arXiv 2407.10671; Qwen2.5 is the same): Llama with biases on queries, keys and values.
 * @module
 */
import { z } from "zod";
import type { Architecture } from "./architecture.ts";
import { flag, integer, parsePart } from "./config_parts.ts";
import { llamaRelative } from "./llama.ts";
import { llamaFamilyJson, type LlamaSizes, NO_HEAD_NORMS, parseLlamaSizes } from "./llama_config.ts";

/** Which layers of a Qwen see a window of tokens only. Keys as in config.json. */
export interface QwenWindow {
  /** Whether any does. */
  use_sliding_window: boolean;
  /** Tokens that a token sees there, itself among them. */
  sliding_window: number | null;
  /** The first of those layers; all before it see everything. */
  max_window_layers: number;
}

/** A Qwen2 model's configuration, every field set. Keys as in config.json. */
export interface Qwen2Config extends LlamaSizes, QwenWindow {
  /** Tells architectures apart. */
  model_type: "qwen2";
}

const windowSchema = z.object({
  use_sliding_window: flag.default(false),
  sliding_window: integer(1, 2 ** 26).nullable().default(4096),
  max_window_layers: integer(0, 4096).default(28),
});

/**
 * Reads which layers see a window only.
 *
 * @throws {ConfigError} naming file and key
 */
export function parseQwenWindow(json: Record<string, unknown>, file: string): QwenWindow {
  return parsePart(windowSchema, json, { file });
}

/**
 * The longest sequence in which no window leaves anything out.
 *
 * @returns tokens, or null for any
 */
export function qwenWindow(config: QwenWindow & { num_hidden_layers: number }): number | null {
  const { use_sliding_window, sliding_window, max_window_layers, num_hidden_layers } = config;
  return use_sliding_window && max_window_layers < num_hidden_layers ? sliding_window : null;
}

/**
 * Checks the configuration of a Qwen2 model; called through `parseModelConfig`.
 *
 * @param json the parsed content of config.json
 * @param file it came from, for messages
 * @returns the configuration, defaults filled in as transformers does
 * @throws {ConfigError} naming file, key, what was expected and what was found
 */
export function parseQwen2Config(json: Record<string, unknown>, file: string): Qwen2Config {
  const sizes = parseLlamaSizes(json, file, {
    neutral: { ...NO_HEAD_NORMS, mlp_bias: false },
    hasWindow: true,
    defaults: {
      ...{ max_position_embeddings: 32768, rms_norm_eps: 1e-6, num_key_value_heads: 32 },
      ...{ bos_token_id: null, eos_token_id: null, pad_token_id: null },
    },
  });
  return { model_type: "qwen2", ...sizes, ...parseQwenWindow(json, file) };
}

/**
 * @param config of a Qwen2
 * @returns its parameters and its forward pass
 */
export function qwen2Architecture(config: Qwen2Config): Architecture {
  return llamaRelative(config, {
    layout: { qkvBias: true, outputBias: false, mlpBias: false, headNorms: false, isFused: false },
    window: qwenWindow(config),
    configJson: ({ dtype }) => llamaFamilyJson(config, { architecture: "Qwen2ForCausalLM", dtype }),
  });
}
