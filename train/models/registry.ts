/**
 * The supported architectures, by `model_type`. A new model adds its line here.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { llamaArchitecture } from "./llama.ts";
import { type LlamaConfig, parseLlamaConfig } from "./llama_config.ts";

/** A configuration of any supported architecture, told apart by `model_type`. Keys keep Hugging Face's spelling. */
export type ModelConfig = LlamaConfig;

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
};

/**
 * @param config checked
 * @returns the parameters and the forward pass of its architecture
 */
export function architectureOf(config: ModelConfig): Architecture {
  return ARCHITECTURES[config.model_type].make(config);
}
