/**
 * The study's parts that need no device.
 *
 * @module
 */
import assert from "node:assert/strict";
import { InputError } from "../../train/errors.ts";
import { createRandom } from "../../train/random.ts";
import { markdownReport } from "../../train/report/markdown.ts";
import { openCells } from "../../train/study/cells.ts";
import { studyData } from "../../train/study/data.ts";
import { trainHidden } from "../../train/study/geometry.ts";
import { FULL_STUDY, QUICK_STUDY, sensitivities, studySeeds } from "../../train/study/settings.ts";
import { squeeze } from "../../train/study/squeezing.ts";
import { rankCorrelation, spreadOf } from "../../train/study/statistics.ts";
import { toySections } from "../../train/study/toy_sections.ts";
import { corrupt } from "../../train/tasks/arithmetic.ts";

Deno.test("squeezing: the most likely answer takes what the rejected one gives up, and the chosen one loses", () => {
  for (const place of ["peak", "valley"] as const) {
    const { chosen, mostLikely, rejected, others } = squeeze(place, 0);
    assert(rejected[1] < rejected[0] && chosen[1] < chosen[0] && mostLikely[1] > mostLikely[0] + 0.1);
    for (const at of [0, 1]) {
      const sum = chosen[at] + mostLikely[at] + rejected[at] + others[at];
      assert(Math.abs(sum - 1) < 1e-12);
    }
    const held = squeeze(place, 1);
    assert(held.chosen[1] > held.chosen[0]);
  }
});

Deno.test("geometry: both losses order the pair and lose it to the third token; a penalty keeps it", () => {
  for (const loss of ["dpo", "simpo"] as const) {
    const last = (lambda: number) => trainHidden(loss, { lambda, steps: 600 }).at(-1)!;
    const alone = last(0);
    assert(alone.chosen > alone.rejected, "margin accuracy is 1");
    assert(alone.third > alone.chosen, "and the third token the most likely");
    for (const lambda of [0.2, 1]) assert(last(lambda).chosen > 0.5, `${loss}, lambda ${lambda}`);
  }
});

Deno.test("geometry: the gradient of the hidden state is the loss's", () => {
  // One step's change of the margin, against what descent on -lsig(beta margin) along |W+ - W-|^2 = 2 - 2 cos gives.
  const [before, after] = trainHidden("dpo", { lambda: 0, steps: 1 });
  const margin = ({ chosen, rejected }: typeof before) => Math.log(chosen / rejected);
  assert(Math.abs(margin(after) - margin(before) - 0.5 * 0.1 * 0.5 * (2 - 2 * 0.95)) < 1e-12);
});

Deno.test("the toys are sections with figures, and take seconds", () => {
  const sections = toySections();
  assert.deepEqual(sections.map(({ figures }) => figures?.length), [1, 2]);
});

Deno.test("ranks: ties share their mean, order alone counts", () => {
  assert.equal(rankCorrelation([1, 2, 3, 4], [-1, -8, -27, -64]), -1);
  assert.equal(rankCorrelation([1, 1, 2], [1, 1, 2]), 1);
  // By hand: ranks 0.5 0.5 2 and 0 1 2, centred -0.5 -0.5 1 and -1 0 1.
  assert(Math.abs(rankCorrelation([1, 1, 2], [1, 2, 3]) - 1.5 / Math.sqrt(1.5 * 2)) < 1e-12);
  assert.throws(() => rankCorrelation([1, 1], [1, 2]), RangeError);
  assert.throws(() => spreadOf([]), RangeError);
});

Deno.test("corruptions change as many digits as asked for, and every place and digit may be changed", () => {
  const random = createRandom(5);
  for (const digits of [1, 2, 3, 4]) {
    const seen = new Set<string>();
    for (let draw = 0; draw < 400; draw++) {
      const changed = corrupt(random, "58,07$", digits);
      const places = [...changed].flatMap((character, at) => (character === "58,07$"[at] ? [] : [at]));
      assert.equal(places.length, digits);
      for (const at of places) seen.add(`${at}${changed[at]}`);
    }
    assert.equal(seen.size, 36, "nine other digits at four places");
  }
  assert.throws(() => corrupt(random, "58,07$", 5), /1 to 4/);
});

Deno.test("a study's data: held-out sides differ where it says, groups begin with the right chain", () => {
  const settings = { ...QUICK_STUDY, heldOut: 20, massProblems: 3, evolutionProblems: 2 };
  const small = {
    ...settings,
    sft: { ...settings.sft, examples: 10 },
    preference: { ...settings.preference, pairs: 12 },
  };
  const data = studyData(small, 3);
  data.heldOut.forEach(({ chosen, rejected }, index) => {
    const differ = chosen.completionIds.flatMap((id, at) => (id === rejected.completionIds[at] ? [] : [at]));
    assert.deepEqual(differ, [data.corruptedAt[index]]);
  });
  assert.equal(data.groups.length, 3);
  assert(
    data.groups.every((group, index) =>
      group.length === 37 && group[0].completionIds.join() === data.heldOut[index].chosen.completionIds.join()
    ),
  );
  const digitsOf = (digits: number) =>
    data.pairs(digits).map(({ chosen, rejected }) =>
      chosen.completionIds.filter((id, at) => id !== rejected.completionIds[at]).length
    );
  assert.deepEqual(new Set(digitsOf(1)), new Set([1]));
  assert.deepEqual(new Set(digitsOf(4)), new Set([4]));
  assert.deepEqual(
    data.pairs(4).map(({ chosen }) => chosen.promptIds),
    data.pairs(4).map(({ rejected }) => rejected.promptIds),
  );
});

Deno.test("groups: seeds follow each other, sweeps have the comparison's own value in its place", () => {
  assert.deepEqual(studySeeds({ ...FULL_STUDY, seed: 7 }), [7, 8, 9]);
  const beta = sensitivities(FULL_STUDY).find(({ title }) => title === "Beta")!;
  assert.deepEqual(beta.rows.map(({ label }) => label).filter((label) => !label.includes("SPO")), [
    ...["0.03, DPO", "0.1, DPO", "0.3, DPO"],
  ]);
});

Deno.test("results are kept under what they depend on; a file that holds anything else is refused", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const cells = openCells(folder, { adapter: "a" });
    await cells.keep({ lr: 1 }, [0.1]);
    assert.deepEqual(await cells.find({ lr: 1 }), [0.1]);
    assert.equal(await cells.find({ lr: 2 }), undefined);
    assert.equal(await openCells(folder, { adapter: "b" }).find({ lr: 1 }), undefined);
    await Deno.copyFile(cells.path({ lr: 1 }), cells.path({ lr: 2 }));
    await assert.rejects(cells.find({ lr: 2 }), InputError);
    await Deno.writeTextFile(cells.path({ lr: 1 }), "{");
    await assert.rejects(cells.find({ lr: 1 }), /remove the file/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Markdown: tables, configuration, and no two pictures of one name", () => {
  const figure = { title: "Loss, by step!", description: "", legend: [], svg: "<svg></svg>" };
  const section = { title: "A", figures: [figure], tables: [{ headers: ["x"], rows: [["1"]] }] };
  const { text, pictures } = markdownReport(
    { title: "T", sections: [section], configuration: { seed: 1 } },
    "t",
  );
  assert.deepEqual([...pictures.keys()], ["loss_by_step.svg"]);
  assert.match(text, /!\[Loss, by step!\]\(t\/loss_by_step\.svg\)/);
  assert.match(text, /```json\n\{\n {2}"seed": 1\n\}\n```/);
  assert.throws(() => markdownReport({ title: "T", sections: [section, section] }, "t"), /two/);
});
