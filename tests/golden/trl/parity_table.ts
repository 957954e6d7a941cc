/**
 * Prints the parity table and writes it between its markers in docs/losses.md:
 *
 *     deno run --allow-all tests/golden/trl/parity_table.ts
 *
 * @module
 */
import { readFileSync, writeFileSync } from "node:fs";
import { testGpu } from "../../gpu.ts";
import { PARITY_CASES } from "./cases.ts";
import { type Deviation, deviationsOf, GOLDEN, type ParityMode, runCase } from "./parity.ts";

const START = "<!-- parity table: written by tests/golden/trl/parity_table.ts -->";
const END = "<!-- end of parity table -->";
const DOCUMENT = new URL("../../../docs/losses.md", import.meta.url);

/** A column: the largest deviation among these quantities. */
const COLUMNS: readonly (readonly [string, readonly string[]])[] = [
  ["loss", ["loss"]],
  ["grad_norm", ["grad_norm"]],
  ["rewards", ["rewards/chosen", "rewards/rejected", "rewards/margins"]],
  ["logps", ["logps/chosen", "logps/rejected"]],
  ["other", []],
];

function cell(deviations: readonly Deviation[], names: readonly string[]): string {
  const named = COLUMNS.flatMap(([, names]) => names);
  const of = deviations.filter(({ name }) => names.length > 0 ? names.includes(name) : !named.includes(name));
  return of.length === 0 ? "–" : show(Math.max(...of.map(({ deviation }) => deviation)));
}

function show(deviation: number): string {
  return deviation === 0 ? "0" : deviation.toExponential(1);
}

async function row(name: string, mode: ParityMode): Promise<string[]> {
  if (!GOLDEN[name][mode]) return [name, mode, "TRL refuses it", ...COLUMNS.slice(1).map(() => "")];
  const deviations = deviationsOf(await runCase(await testGpu(), { name, mode }), { name, mode });
  return [name, mode, ...COLUMNS.map(([, names]) => cell(deviations, names))];
}

async function table(): Promise<string> {
  const header = ["run", "weights", ...COLUMNS.map(([title]) => title)];
  const rows: string[][] = [];
  for (const name of Object.keys(PARITY_CASES)) {
    for (const mode of ["full", "lora"] as const) rows.push(await row(name, mode));
  }
  const widths = header.map((_, column) =>
    Math.max(...[header, ...rows].map((cells) => cells[column].length))
  );
  const lines = [header, widths.map((width) => "-".repeat(width)), ...rows];
  // Padded, as `deno fmt` has tables.
  return lines.map((cells) => `| ${cells.map((text, column) => text.padEnd(widths[column])).join(" | ")} |`)
    .join("\n");
}

if (import.meta.main) {
  const text = readFileSync(DOCUMENT, "utf8");
  const [start, end] = [text.indexOf(START), text.indexOf(END)];
  if (start < 0 || end < start) {
    throw new Error(`Cannot write the table: expected its two markers in ${DOCUMENT}`);
  }
  const made = await table();
  console.log(made);
  writeFileSync(DOCUMENT, `${text.slice(0, start + START.length)}\n\n${made}\n\n${text.slice(end)}`);
  Deno.exit(0);
}
