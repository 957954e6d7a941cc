/**
 * The README's own way from a model and data to a merged model, for the test that walks it.
 *
 * @module
 */
import { codeBlocks, DOCUMENTS, shellWords } from "./markdown.ts";

const README = DOCUMENTS.find(({ path }) => path === "README.md")!.text;
const SECTION = README.slice(README.indexOf("\n## Your own model and data"));

/** Command and flags of each line of the section's first block of commands, in order. */
export const OWN_DATA_COMMANDS: readonly (readonly string[])[] = codeBlocks(SECTION)
  .find(({ language }) => language === "indented")!
  .lines.map((line) => shellWords(line).slice(2));

/**
 * The flags of one of them, as the README has them but for the words that stand for a user's own.
 *
 * @param command its name
 * @param options.values what stands in place of which word
 * @param options.without a flag that the line must not have, where there are several
 */
export function readmeFlags(
  command: string,
  options: { values: Readonly<Record<string, string>>; without?: string; with?: string },
): string[] {
  const lines = OWN_DATA_COMMANDS.filter(([name, ...flags]) =>
    name === command && !flags.includes(options.without ?? "") &&
    (options.with === undefined || flags.includes(options.with))
  );
  if (lines.length !== 1) throw new Error(`README.md has ${lines.length} lines of ${command}`);
  return lines[0].slice(1).map((word) => options.values[word] ?? word);
}
