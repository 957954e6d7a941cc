import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { LOSS_PAPERS } from "../../train/losses/papers.ts";
import { LOSS_ALIASES, PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { flagOf } from "../../train/settings.ts";

const LOG_RATIO_OPTIONS = ["fDivergenceType", "fAlphaDivergenceCoef", "referenceFree"];

Deno.test("docs/losses.md has a row for every loss, with its options and their defaults", () => {
  const text = readFileSync(new URL("../../docs/losses.md", import.meta.url), "utf8");
  const rows = [...text.matchAll(/^\| `([a-z_]+)`.*\|$/gm)];
  for (const [name, loss] of Object.entries(PAIR_LOSSES)) {
    const row = rows.find(([, found]) => found === name)?.[0];
    assert.ok(row, `${name} has a row`);
    const cells = row.split("|").map((cell) => cell.trim());
    const { options } = loss.resolve({});
    const own = Object.entries(options).filter(([option]) => !LOG_RATIO_OPTIONS.includes(option));
    const expected = own.map(([option, value]) => `${flagOf([option]).slice(2)} ${value}`);
    const found = cells[3].split(", ").map((option) => option.replace(/ \(.*\)$/, ""));
    assert.deepEqual(found, expected, name);
    assert.match(cells[4], /^[\d., ]+$/, `${name} names its paper`);
    assert.equal(cells[4].split(", ")[0], LOSS_PAPERS[name as PairLossKey], name);
  }
  for (const [alias, name] of Object.entries(LOSS_ALIASES)) {
    assert.ok(new RegExp(`^\\| \`${name}\` \\(\`${alias}\`\\) +\\|`, "m").test(text), alias);
  }
});
