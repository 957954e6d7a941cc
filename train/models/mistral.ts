/**
 * The Mistral architecture (arXiv 2310.06825): Llama with grouped queries, and attention to a window of tokens. Within the
 * window it is Llama, so that the window is the longest sequence here.
 * @module
 */
import { z } from "zod";
import type { Architecture } from "./architecture.ts";
import { integer, parsePart } from "./config_parts.ts";
import { llamaRelative } from "./llama.ts";
import {
  llamaFamilyJson,
  type LlamaSizes,
  NO_BIASES,
  NO_HEAD_NORMS,
  parseLlamaSizes,
} from "./llama_config.ts";

/** A Mistral model's configuration, every field set. Keys as in config.json. */
export interface MistralConfig extends LlamaSizes {
  /** Tells architectures apart. */
  model_type: "mistral";
  /** Tokens that a token sees, itself among them; all before it where it is null. */
  sliding_window: number | null;
}

/**
 * Checks the configuration of a Mistral model; called through `parseModelConfig`.
 *
 * @param json the parsed content of config.json
 * @param file it came from, for messages
 * @returns the configuration, defaults filled in as transformers does
 * @throws {ConfigError} naming file, key, what was expected and what was found
 */
export function parseMistralConfig(json: Record<string, unknown>, file: string): MistralConfig {
  const sizes = parseLlamaSizes(json, file, {
    neutral: { ...NO_BIASES, ...NO_HEAD_NORMS },
    hasWindow: true,
    defaults: {
      ...{ max_position_embeddings: 4096 * 32, rms_norm_eps: 1e-6, num_key_value_heads: 8 },
      ...{ bos_token_id: 1, eos_token_id: 2, pad_token_id: null },
    },
  });
  const schema = z.object({ sliding_window: integer(1, 2 ** 26).nullable().default(4096) });
  const { sliding_window } = parsePart(schema, json, { file });
  // Absent, it is 4096 to transformers; what is switched off is none.
  return {
    model_type: "mistral",
    ...sizes,
    sliding_window: json.use_sliding_window === false ? null : sliding_window,
  };
}

/**
 * @param config of a Mistral
 * @returns its parameters and its forward pass
 */
export function mistralArchitecture(config: MistralConfig): Architecture {
  return llamaRelative(config, {
    layout: { qkvBias: false, outputBias: false, mlpBias: false, headNorms: false, isFused: false },
    window: config.sliding_window,
    configJson: ({ dtype }) => llamaFamilyJson(config, { architecture: "MistralForCausalLM", dtype }),
  });
}
