/**
 * Writes what a study writes, in a process with its permissions: a whole study takes minutes.
 *
 * @module
 */
import { join } from "node:path";
import { lineFigure } from "../../train/report/line_figure.ts";
import { writeMarkdown } from "../../train/report/markdown.ts";
import { writeReport } from "../../train/report/page.ts";
import { openCells } from "../../train/study/cells.ts";

if (import.meta.main) {
  const [output, document] = Deno.args;
  const results = join(output, "results");
  await Deno.mkdir(results, { recursive: true });
  const cells = openCells(results, { adapter: "none" });
  await cells.keep("settings", 1);
  if (await cells.find("settings") !== 1) throw new Error("the result is not there again");
  const figure = lineFigure({
    title: "A figure",
    x: { label: "x", unit: "" },
    y: { label: "y", unit: "" },
    series: [{ name: "a", points: [{ x: 1, y: 1 }] }],
  });
  const report = { title: "A study", sections: [{ title: "A section", figures: [figure] }] };
  await writeReport(join(output, "report.html"), report);
  await writeMarkdown(document, report);
  await writeMarkdown(document, { ...report, sections: [] }); // removes the figure
  await writeMarkdown(document, report);
}
