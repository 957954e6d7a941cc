import assert from "node:assert/strict";
import { formatMarkdownTable, formatTable } from "../../train/table.ts";

Deno.test("columns of numbers stand to the right, words to the left, and no line ends in a blank", () => {
  const rows = [["sft", 1.5, "93.8 %", "-", "a"], ["dpo+spo", -12.25, "100.0 %", "+0.1", "bcd"]];
  assert.equal(
    formatTable(["phase", "loss", "match", "change", "note"], rows),
    "phase      loss    match  change  note\n" +
      "-------  ------  -------  ------  ----\n" +
      "sft         1.5   93.8 %       -  a\n" +
      "dpo+spo  -12.25  100.0 %    +0.1  bcd\n",
  );
});

Deno.test("one word among numbers makes a column of words", () => {
  assert.equal(formatTable(["n"], [[1], ["none"]]), "n\n----\n1\nnone\n");
});

Deno.test("numbers of every form count as such", () => {
  for (const cell of ["1,234", "1e-8", ".5", "2.1x", "NaN", "-Infinity", 0]) {
    assert.equal(formatTable(["a long header"], [[cell]]).split("\n")[2], String(cell).padStart(13));
  }
});

Deno.test("line ends and terminal controls of decoded text are escaped", () => {
  assert.equal(formatTable(["text"], [["a\nb\tc\x1b[2J"]]).split("\n")[2], "a\\nb\\tc\\u001b[2J");
});

Deno.test("a character outside the basic plane takes one column", () => {
  assert.equal(formatTable(["x", "y"], [["😀", "a"], ["bc", "d"]]).split("\n")[2], "😀   a");
});

Deno.test("a table without rows is its headers", () => {
  assert.equal(formatTable(["a", "bc"], []), "a  bc\n-  --\n");
  assert.equal(formatMarkdownTable(["a", "bc"], []), "| a | bc |\n| - | -- |\n");
});

Deno.test("a row of another length is refused", () => {
  for (const format of [formatTable, formatMarkdownTable]) {
    assert.throws(() => format(["a", "b"], [[1, 2], [3]]), {
      name: "RangeError",
      message: "Cannot format row 1 of a table: expected 2 cells, found 1",
    });
  }
});

Deno.test("Markdown: alignment in the rule, bars escaped", () => {
  assert.equal(
    formatMarkdownTable(["phase", "loss"], [["a|b", 1.25], ["c", 10]]),
    "| phase | loss |\n| ----- | ---: |\n| a\\|b  | 1.25 |\n| c     |   10 |\n",
  );
});
