/**
 * A report as Markdown, for the documentation.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { writeFileAtomically } from "../atomic_file.ts";
import { formatMarkdownTable } from "../table.ts";
import { cannotWrite, makeFolder } from "../write_error.ts";
import type { Report } from "./page.ts";
import { standaloneSvg } from "./standalone.ts";

/** A report's text, and the pictures that it shows. */
export interface MarkdownReport {
  readonly text: string;
  /** Content by file name. */
  readonly pictures: ReadonlyMap<string, string>;
}

/**
 * @param report its content, which is taken for Markdown
 * @param folder of the pictures, as the text is to name it
 * @throws {RangeError} where two figures have one title
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { text } = markdownReport({ title: "A run", sections: [{ title: "Loss", paragraphs: ["It fell."] }] }, "figures");
 * assert.equal(text, "# A run\n\n## Loss\n\nIt fell.\n");
 * ```
 */
export function markdownReport(report: Report, folder: string): MarkdownReport {
  const { title, subtitle, sections, configuration } = report;
  const pictures = new Map<string, string>();
  const blocks = [`# ${title}`, ...(subtitle === undefined ? [] : [subtitle])];
  for (const section of sections) {
    blocks.push(`## ${section.title}`, ...section.paragraphs ?? []);
    for (const { caption, headers, rows } of section.tables ?? []) {
      if (caption !== undefined) blocks.push(`**${caption}**`);
      blocks.push(formatMarkdownTable(headers, rows).trimEnd());
    }
    for (const figure of section.figures ?? []) {
      const name = `${
        figure.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_").replaceAll(/^_|_$/g, "")
      }.svg`;
      if (pictures.has(name)) {
        throw new RangeError(`Cannot name a picture: expected one figure titled ${figure.title}, found two`);
      }
      pictures.set(name, standaloneSvg(figure));
      blocks.push(`![${figure.title}](${folder}/${name})`);
    }
  }
  if (configuration !== undefined) {
    blocks.push("## Configuration", `\`\`\`json\n${JSON.stringify(configuration, null, 2)}\n\`\`\``);
  }
  return { text: `${blocks.join("\n\n")}\n`, pictures };
}

/**
 * Writes a report as Markdown, its pictures in a folder of the same name beside it: each file whole or not at all, and the
 * text, which names the pictures, last. Pictures of an earlier report that this one does not show are removed.
 *
 * @param path ending in `.md`; its folder must exist
 * @param report its content
 * @throws {InputError} where a file cannot be written
 */
export async function writeMarkdown(path: string, report: Report): Promise<void> {
  const folder = join(dirname(path), basename(path, ".md"));
  const { text, pictures } = markdownReport(report, basename(folder));
  const write = (file: string, content: string) =>
    writeFileAtomically(file, (append) => append(new TextEncoder().encode(content)));
  await makeFolder(folder);
  for (const [name, content] of pictures) await write(join(folder, name), content);
  await write(path, text);
  try {
    for await (const { name, isFile } of Deno.readDir(folder)) {
      if (isFile && name.endsWith(".svg") && !pictures.has(name)) await Deno.remove(join(folder, name));
    }
  } catch (cause) {
    throw cannotWrite(folder, cause);
  }
}
