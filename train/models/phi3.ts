/**
 * The Phi-3 architecture (arXiv 2404.14219): Llama with queries, keys and values, and gate and up, in one matrix each.
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

/** A Phi-3 model's configuration, every field set. Keys as in config.json. */
export interface Phi3Config extends LlamaSizes {
  /** Tells architectures apart. */
  model_type: "phi3";
  /** Of the first training; longer ones need LongRoPE, which is refused. */
  original_max_position_embeddings: number;
  /** Tokens that a token sees, itself among them; all before it where it is null. */
  sliding_window: number | null;
}

/**
 * Checks the configuration of a Phi-3 model; called through `parseModelConfig`.
 *
 * @param json the parsed content of config.json
 * @param file it came from, for messages
 * @returns the configuration, defaults filled in as transformers does
 * @throws {ConfigError} naming file, key, what was expected and what was found
 */
export function parsePhi3Config(json: Record<string, unknown>, file: string): Phi3Config {
  const sizes = parseLlamaSizes(json, file, {
    neutral: { ...NO_BIASES, ...NO_HEAD_NORMS, embd_pdrop: 0, resid_pdrop: 0 },
    hasWindow: true,
    ropeTypes: ["default"],
    defaults: {
      ...{ max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
      ...{ bos_token_id: 1, eos_token_id: 32000, pad_token_id: 32000 },
    },
  });
  const schema = z.object({
    original_max_position_embeddings: integer(1, 2 ** 26).default(4096),
    sliding_window: integer(1, 2 ** 26).nullable().default(null),
  });
  return { model_type: "phi3", ...sizes, ...parsePart(schema, json, { file }) };
}

/**
 * @param config of a Phi-3
 * @returns its parameters and its forward pass
 */
export function phi3Architecture(config: Phi3Config): Architecture {
  return llamaRelative(config, {
    layout: { qkvBias: false, outputBias: false, mlpBias: false, headNorms: false, isFused: true },
    window: config.sliding_window,
    configJson: ({ dtype }) => llamaFamilyJson(config, { architecture: "Phi3ForCausalLM", dtype }),
  });
}
