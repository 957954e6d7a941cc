/**
 * The supported architectures, by `model_type`. A new model adds its line here.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { gpt2Architecture } from "./gpt2.ts";
import { type Gpt2Config, parseGpt2Config } from "./gpt2_config.ts";
import { llamaArchitecture } from "./llama.ts";
import { type LlamaConfig, parseLlamaConfig } from "./llama_config.ts";
import { mistralArchitecture, type MistralConfig, parseMistralConfig } from "./mistral.ts";
import { parsePhi3Config, phi3Architecture, type Phi3Config } from "./phi3.ts";
import { parseQwen2Config, qwen2Architecture, type Qwen2Config } from "./qwen2.ts";
import { parseQwen3Config, qwen3Architecture, type Qwen3Config } from "./qwen3.ts";

/** A configuration of any supported architecture, told apart by `model_type`. Keys keep Hugging Face's spelling. */
export type ModelConfig =
  | LlamaConfig
  | MistralConfig
  | Qwen2Config
  | Qwen3Config
  | Gpt2Config
  | Phi3Config;

/** How the configuration of an architecture is read, and what it makes. */
interface Entry<Config> {
  readonly parse: (json: Record<string, unknown>, file: string) => Config;
  readonly make: (config: Config) => Architecture;
}

/** `model_type` to entry. */
export const ARCHITECTURES: {
  readonly [Type in ModelConfig["model_type"]]: Entry<ModelConfig & { model_type: Type }>;
} = {
  llama: { parse: parseLlamaConfig, make: llamaArchitecture },
  mistral: { parse: parseMistralConfig, make: mistralArchitecture },
  qwen2: { parse: parseQwen2Config, make: qwen2Architecture },
  qwen3: { parse: parseQwen3Config, make: qwen3Architecture },
  gpt2: { parse: parseGpt2Config, make: gpt2Architecture },
  phi3: { parse: parsePhi3Config, make: phi3Architecture },
};

/**
 * @param config checked
 * @returns the parameters and the forward pass of its architecture
 */
export function architectureOf(config: ModelConfig): Architecture {
  // The entry is that of the config's own model_type, which TypeScript cannot tell from the others.
  const { make } = ARCHITECTURES[config.model_type] as Entry<ModelConfig>;
  return make(config);
}
