/**
 * A report's page as text.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { InputError } from "../../train/errors.ts";
import { escapeHtml } from "../../train/report/escape.ts";
import { lineFigure } from "../../train/report/line_figure.ts";
import { type Report, reportPage, writeReport } from "../../train/report/page.ts";
import { HOSTILE } from "./generated_run.ts";

const figure = (text: string) =>
  lineFigure({
    title: text,
    x: { label: text, unit: text },
    y: { label: text, unit: text },
    series: [{ name: text, points: [{ x: 1, y: 1 }] }, { name: `${text} 2`, points: [{ x: 1, y: 2 }] }],
  });

/** Every place of a report that holds text. */
function filled(text: string): Report {
  const section = {
    title: text,
    paragraphs: [text],
    figures: [figure(text)],
    tables: [{ caption: text, headers: [text, text], rows: [[text, 1], [text, "2"]] }],
  };
  return {
    title: text,
    subtitle: text,
    sections: Array.from({ length: 4 }, () => section),
    configuration: { [text]: text },
  };
}

const tags = (html: string) => html.match(/<\/?[a-z0-9]+/gi)!;

Deno.test("no text becomes HTML, wherever it stands", () => {
  const page = reportPage(filled(HOSTILE));
  assert.deepEqual(
    tags(page),
    tags(reportPage(filled("harmless"))),
    "the same elements as with harmless texts",
  );
  assert.doesNotMatch(page, /<script|<img|\son[a-z]+="/);
  // deno-lint-ignore no-control-regex -- they are what must not be there
  assert.doesNotMatch(page, /[\u0000-\u0008\u202e]/);
  assert.equal(page.split("&lt;script&gt;").length > 20, true);
});

Deno.test("escapeHtml shows what HTML cannot hold", () => {
  assert.equal(escapeHtml(`<&>"'`), "&lt;&amp;&gt;&quot;&#39;");
  assert.equal(escapeHtml("a\tb\nc\r\u0000\u202e\u009b"), "a\tb\nc\\u000d\\u0000\\u202e\\u009b");
  assert.equal(escapeHtml("é 漢 🙂 \ud800"), "é 漢 🙂 \ufffd");
});

Deno.test("the policy allows the page's one style sheet by its hash, and nothing else", () => {
  const page = reportPage(filled("text"));
  const styles = [...page.matchAll(/<style>(.*?)<\/style>/gs)];
  assert.equal(styles.length, 1);
  const hash = createHash("sha256").update(styles[0][1]).digest("base64");
  const [, policy] = page.match(/http-equiv="Content-Security-Policy" content="([^"]*)"/)!;
  assert.equal(policy, `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`);
  assert.doesNotMatch(page, /\sstyle=|<link|url\(|@import/);
  assert.deepEqual(page.match(/https?:[^"\s]*/g)?.filter((url) => url !== "http://www.w3.org/2000/svg"), []);
});

Deno.test("columns of numbers stand to the right, and rows have to fit", () => {
  const of = (rows: (string | number)[][]) =>
    reportPage({ title: "t", sections: [{ title: "s", tables: [{ headers: ["name", "loss"], rows }] }] });
  assert.match(of([["a", "-1.5 %"]]), /<td>a<\/td><td class="number">-1.5 %<\/td>/);
  assert.doesNotMatch(of([["a", 1], ["b", "none"]]), /<td class="number">/);
  assert.throws(() => of([["a"]]), /Cannot show row 0 of a table: expected 2 cells, found 1/);
});

Deno.test("a report is written whole, or not at all", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = join(folder, "report.html");
    await writeReport(file, filled("text"));
    assert.equal(await Deno.readTextFile(file), reportPage(filled("text")));
    const missing = join(folder, "none", "report.html");
    await assert.rejects(writeReport(missing, filled("text")), InputError);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["report.html"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
