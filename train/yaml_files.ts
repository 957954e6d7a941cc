/**
 * What is known of YAML files without their parser, which set-up must do without.
 * @module
 */

/** Variables that the parser looks at, whatever they hold: it prints its tokens where they are set. */
export const YAML_VARIABLES = ["LOG_STREAM", "LOG_TOKENS"] as const;

/** Whether a file is YAML by its name. */
export function isYamlFile(path: string): boolean {
  return /\.ya?ml$/i.test(path);
}
