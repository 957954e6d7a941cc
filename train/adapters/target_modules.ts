/**
 * Which linear layers an adapter changes: PEFT's `target_modules`.
 * @module
 */
import { ConfigError } from "../errors.ts";
import type { Architecture } from "../models/architecture.ts";

/** Every linear layer but the output head. */
export const ALL_LINEAR = "all-linear";

/** Modules of a layer are numbered: neither an embedding nor the head is. */
const IN_A_LAYER = /\.\d+\./;
const WEIGHT = ".weight";

/**
 * The linear layers of a model, which an adapter may change.
 *
 * @param architecture of the model
 * @returns names without `.weight`, in the order of the forward pass
 */
export function linearModules({ shapes }: Architecture): string[] {
  return [...shapes].flatMap(([name, { length }]) =>
    length === 2 && name.endsWith(WEIGHT) && IN_A_LAYER.test(name) ? [name.slice(0, -WEIGHT.length)] : []
  );
}

/**
 * Picks modules as PEFT does: a list holds names that modules equal or end in after a dot; a text is a regular expression
 * of a whole name, or {@link ALL_LINEAR}.
 *
 * @param architecture of the model
 * @param targets the list or text
 * @returns names without `.weight`, in the order of the forward pass
 * @throws {ConfigError} when a target matches nothing, or the embedding or the head
 */
export function findTargets(architecture: Architecture, targets: readonly string[] | string): string[] {
  const linear = linearModules(architecture);
  if (targets === ALL_LINEAR) return linear;
  const others = new Set([architecture.embedding, architecture.head, architecture.tiedHead ?? []].flat());
  const modules = [
    ...linear,
    ...[...others].map((name) => name.endsWith(WEIGHT) ? name.slice(0, -WEIGHT.length) : name),
  ];
  const matchers = typeof targets === "string"
    ? [{ target: targets, matches: wholeMatch(targets) }]
    : targets.map((target) => ({ target, matches: (name: string) => `.${name}`.endsWith(`.${target}`) }));
  const found = new Set<string>();
  for (const { target, matches } of matchers) {
    const names = modules.filter(matches);
    if (names.length === 0) {
      const ends = [...new Set(linear.map((name) => name.slice(name.lastIndexOf(".") + 1)))];
      throw new ConfigError(
        `Cannot add LoRA: expected target modules of this model (${ends.join(", ")}), found ${
          JSON.stringify(target)
        }, which none matches`,
      );
    }
    const outside = names.find((name) => !linear.includes(name));
    if (outside !== undefined) {
      throw new ConfigError(
        `Cannot add LoRA: expected linear layers of the model's layers, found ${outside} (embedding and head stay as ` +
          `they are), which ${JSON.stringify(target)} matches`,
      );
    }
    for (const name of names) found.add(name);
  }
  return linear.filter((name) => found.has(name));
}

function wholeMatch(pattern: string): (name: string) => boolean {
  let expression: RegExp;
  try {
    expression = new RegExp(`^(?:${pattern})$`);
  } catch (cause) {
    throw new ConfigError(
      `Cannot add LoRA: expected a regular expression or a list of modules, found ${
        JSON.stringify(pattern)
      }: ${(cause as Error).message}`,
      { cause },
    );
  }
  return (name) => expression.test(name);
}

/**
 * Targets as a flag gives them.
 *
 * @param text names with commas between them, a regular expression, or {@link ALL_LINEAR}
 * @returns a list where there are names only
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseTargets("q_proj, v_proj"), ["q_proj", "v_proj"]);
 * assert.equal(parseTargets("all-linear"), "all-linear");
 * assert.equal(parseTargets(".*_proj"), ".*_proj");
 * ```
 */
export function parseTargets(text: string): readonly string[] | string {
  if (text === ALL_LINEAR) return text;
  const names = text.split(",").map((name) => name.trim());
  return names.every((name) => /^\w+(\.\w+)*$/.test(name)) ? names : text;
}
