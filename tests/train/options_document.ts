/**
 * docs/options.md, made of the table of names: `deno run -R -W tests/train/options_document.ts` writes it.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { OPTION_NAMES, type OptionName } from "../../train/option_names.ts";
import { formatMarkdownTable } from "../../train/table.ts";

/** Where it is. */
export const OPTIONS_FILE = fileURLToPath(new URL("../../docs/options.md", import.meta.url));

/** The document, as it has to be. */
export function optionsDocument(): string {
  const names = Object.entries(OPTION_NAMES);
  const taken = names.filter(([, option]) => "setting" in option);
  const rest = names.filter(([, option]) => !("setting" in option) && !("instead" in option));
  const refused = names.filter(([, option]) => "instead" in option);
  return [
    HEAD,
    table(
      ["name", "of", "here", "note"],
      taken,
      (name, option) => [name, settingCell(option), noteCell(option)],
    ),
    CONDITIONS,
    table(
      ["name", "of", "values", "note"],
      rest,
      (name, option) => [name, valuesCell(option), noteCell(option)],
    ),
    REFUSED,
    table(["name", "of", "instead"], refused, (name, option) => [name, noteCell(option)]),
  ].join("\n");
}

const HEAD = `# Options by other libraries' names

\`train\`, \`profile\` and \`inspect\` know the names that TRL, PEFT and axolotl have for their settings: as keys of a
config file, in snake case, and as flags, in snake case or with hyphens (\`--per_device_train_batch_size 4\`,
\`--per-device-train-batch-size 4\`). A name is taken where its meaning is exactly the same; elsewhere it is refused with
what to use instead. A setting under two names is refused, too, but for a flag over a file. Values alone carry over:
what is not given has Keel's default (\`deno task train --help\`), not the other library's.

Read in TRL 1.16.0 (DPOConfig, SFTConfig, KTOConfig, ModelConfig; CPOConfig and ORPOConfig of trl.experimental) on
transformers 5.24.0 (TrainingArguments), TRL 0.24.0 for what has gone since, PEFT 0.21.2 (LoraConfig) and axolotl
0.19.0 (axolotl.utils.schemas). \`beta\`, \`seed\` and \`alpha\` (of AlphaPO) are spelled alike everywhere. Lists of a file
become texts with commas: \`loss_type: [sigmoid, sft]\`. These tables are train/option_names.ts; a test holds them
together.

## Taken
`;

const CONDITIONS = `
## Taken as a statement

They set nothing: they say what is so anyway, or that another setting is given, and are refused where it is not.
`;

const REFUSED = `
## Refused
`;

type Entry = [name: string, option: OptionName];

function table(
  headers: readonly string[],
  entries: readonly Entry[],
  cells: (name: string, option: OptionName) => string[],
): string {
  const rows = [...entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, option]) => {
    const [first, ...others] = cells(`\`${name}\``, option);
    return [first, option.from.join(", "), ...others];
  });
  return formatMarkdownTable(headers, rows);
}

function settingCell(option: OptionName): string {
  if (!("setting" in option)) return "";
  const { setting, values, isPerMicroBatch } = option;
  const words = Object.entries(values ?? {}).map(([there, here]) => `${there}: ${here}`);
  return [
    `\`${setting}\``,
    ...(isPerMicroBatch ? ["divided by `gradientAccumulationSteps`"] : []),
    ...(words.length > 0 ? [`(${words.join("; ")})`] : []),
  ].join(" ");
}

function valuesCell(option: OptionName): string {
  if ("always" in option) return option.always.join(", ");
  if (!("switches" in option)) return "";
  const { on, off, switches } = option;
  return `${on}: with \`${switches}\`` + (off === undefined ? "" : `; ${off}: without`);
}

function noteCell(option: OptionName): string {
  return "instead" in option ? option.instead : option.note ?? "";
}

if (import.meta.main) await Deno.writeTextFile(OPTIONS_FILE, optionsDocument());
