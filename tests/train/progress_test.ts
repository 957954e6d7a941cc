import assert from "node:assert/strict";
import { createBars, type Screen } from "../../train/progress.ts";
import { formatDuration } from "../../train/progress_text.ts";

function start({ total, ...screen }: Partial<Screen> & { total: number; isTerminal: boolean }) {
  const written: string[] = [];
  const clock = { ms: 0 };
  const bars = createBars({ write: (text) => written.push(text), now: () => clock.ms, ...screen });
  return { bars, progress: bars.start("dpo", total), written, clock };
}

Deno.test("on a terminal one line is redrawn, with bar, numbers and time left", () => {
  const { progress, written, clock } = start({ total: 4, isTerminal: true, columns: () => 100 });
  clock.ms = 10_000;
  progress.update({ step: 1, loss: 0.69314, tokensPerSecond: 1234.4 });
  assert.equal(
    written.join(""),
    "\rdpo  [#######-----------------------]  1/4  loss 0.6931  1,234 tokens/s  0:10 elapsed  0:30 left",
  );
  clock.ms = 40_000;
  progress.update({ step: 4, loss: 0.5 });
  progress.finish();
  const end = `dpo  [${"#".repeat(30)}]  4/4  loss 0.5000  1,234 tokens/s  0:40 elapsed`;
  assert.equal(written.slice(1).join(""), `\r${end.padEnd(written[0].length - 1)}\r${end}\n`);
});

Deno.test("no line reaches the terminal's last column, and the bar goes before the numbers do", () => {
  for (const columns of [1, 10, 40, 60, 70, 80, 200]) {
    const { progress, written, clock } = start({ total: 1000, isTerminal: true, columns: () => columns });
    clock.ms = 5000;
    progress.update({ step: 500, loss: 1, tokensPerSecond: 9 });
    const line = written.join("").slice(1);
    assert.ok(line.length <= Math.max(1, columns - 1), `${line.length} of ${columns}`);
    assert.equal(line.includes("["), columns >= 80, line);
    // 60 columns have no room for the time that has passed, 40 none for the speed either.
    const words = columns === 60
      ? "dpo  500/1000  loss 1.0000  9 tokens/s  0:05 left"
      : "dpo  500/1000  loss 1.0000  0:05 left";
    if (columns <= 60) assert.equal(line, words.slice(0, Math.max(1, columns - 1)));
  }
});

Deno.test("a shorter line covers the longer one before it, but not past a terminal made narrower", () => {
  let columns = 56;
  const { progress, written, clock } = start({ total: 9, isTerminal: true, columns: () => columns });
  clock.ms = 100;
  progress.update({ step: 1, loss: 1234567.5 });
  clock.ms = 200;
  progress.update({ step: 2, loss: 1 });
  const lines = ["1/9  loss 1234567.5000", "2/9  loss 1.0000"].map((text) =>
    `\rdpo  ${text}  0:00 elapsed  0:01 left`
  );
  assert.deepEqual(written, [lines[0], lines[1].padEnd(lines[0].length)]);
  columns = 20;
  clock.ms = 400;
  progress.update({ step: 3 });
  assert.equal(written[2].length, 20);
});

Deno.test("a width of 0, as some terminals report, counts as unknown", () => {
  const { progress, written } = start({ total: 2, isTerminal: true, columns: () => 0 });
  progress.update({ step: 1 });
  assert.match(written[0], /^\rdpo {2}\[#+-+\] {2}1\/2 {2}0:00 elapsed$/);
});

Deno.test("a terminal is redrawn ten times a second at most, and always for the last step", () => {
  const { progress, written, clock } = start({ total: 1000, isTerminal: true });
  for (let step = 1; step <= 999; step++) {
    clock.ms = step;
    progress.update({ step });
  }
  assert.equal(written.length, 10);
  progress.update({ step: 1000 });
  assert.match(written[10], /1000\/1000/);
});

Deno.test("other text takes the bar's place, and the bar comes back under it", () => {
  const { bars, progress, written } = start({ total: 2, isTerminal: true, columns: () => 40 });
  bars.aside(() => written.push("before\n"));
  progress.update({ step: 1 });
  const bar = written[1].slice(1);
  bars.aside(() => written.push("note\n"));
  assert.deepEqual(written, [
    "before\n",
    `\r${bar}`,
    `\r${" ".repeat(bar.length)}\r`,
    "note\n",
    `\r${bar}`,
  ]);
});

Deno.test("a phase within a phase is shown in its place, and gone when it ends", () => {
  const { bars, progress, written, clock } = start({ total: 4, isTerminal: true });
  progress.update({ step: 1 });
  const inner = bars.start("evaluation", 8);
  clock.ms = 200;
  inner.update({ step: 8 });
  clock.ms = 400;
  progress.update({ step: 2 });
  assert.equal(written.length, 2, "the outer one waits");
  inner.finish();
  progress.finish();
  assert.deepEqual(written.map((text) => /[a-z]+/.exec(text)?.[0]), [
    "dpo",
    "evaluation",
    "dpo",
    "dpo",
    undefined,
  ]);
  assert.equal(written.join("").split("\n").length, 2, "one line stays");
});

Deno.test("accuracy and memory are shown, and on a narrow terminal memory goes before the time left", () => {
  const state = {
    step: 1,
    loss: 0.5,
    rewardAccuracy: 0.875,
    tokensPerSecond: 1e5,
    gpuMemoryBytes: 3 * 2 ** 30,
  };
  for (const columns of [120, 70]) {
    const { progress, written, clock } = start({ total: 4, isTerminal: true, columns: () => columns });
    clock.ms = 1000;
    progress.update(state);
    const line = written[0].replace(/\[.*\] {2}/, "");
    const whole =
      "\rdpo  1/4  loss 0.5000  accuracy 88 %  100,000 tokens/s  3.00 GiB  0:01 elapsed  0:03 left";
    const narrow = "\rdpo  1/4  loss 0.5000  accuracy 88 %  100,000 tokens/s  0:03 left";
    assert.equal(line, columns === 120 ? whole : narrow);
  }
});

Deno.test("what an earlier process did says nothing of the time left", () => {
  const { progress, written, clock } = start({ total: 100, isTerminal: false });
  progress.update({ step: 90, resumedFrom: 90 });
  clock.ms = 5000;
  progress.update({ step: 95, loss: 1 });
  progress.finish();
  assert.deepEqual(written, [
    "dpo  90/100  0:00 elapsed\n",
    "dpo  95/100  loss 1.0000  0:05 elapsed  0:05 left\n",
  ]);
});

Deno.test("off a terminal: plain lines, the first update and then one for each tenth of the steps", () => {
  const { progress, written, clock } = start({ total: 100, isTerminal: false });
  for (let step = 1; step <= 100; step++) {
    clock.ms += 1000;
    progress.update({ step, loss: step === 1 ? 2 : undefined });
  }
  progress.finish();
  assert.equal(written[0], "dpo  1/100  loss 2.0000  0:01 elapsed  1:39 left\n");
  assert.equal(written[5], "dpo  50/100  loss 2.0000  0:50 elapsed  0:50 left\n");
  assert.equal(written.at(-1), "dpo  100/100  loss 2.0000  1:40 elapsed\n");
  assert.equal(written.length, 11);
  // deno-lint-ignore no-control-regex -- they must not be there
  assert.doesNotMatch(written.join(""), /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
});

Deno.test("off a terminal a short phase has its first line and its last, and an inner one none", () => {
  const { bars, progress, written, clock } = start({ total: 10, isTerminal: false });
  for (let step = 1; step <= 10; step++) {
    clock.ms += 10;
    progress.update({ step });
    const inner = bars.start("evaluation", 1);
    inner.update({ step: 1 });
    inner.finish();
  }
  progress.finish();
  assert.deepEqual(written, ["dpo  1/10  0:00 elapsed  0:00 left\n", "dpo  10/10  0:00 elapsed\n"]);
});

Deno.test("a phase cut short ends with its last state, once", () => {
  for (const isTerminal of [false, true]) {
    const { progress, written } = start({ total: 100, isTerminal });
    progress.update({ step: 1 });
    progress.update({ step: 2, loss: 0.25 });
    progress.finish();
    assert.match(written.join(""), /2\/100 {2}loss 0\.2500 {2}0:00 elapsed\n$/);
    const count = written.length;
    progress.finish();
    progress.update({ step: 100 });
    assert.equal(written.length, count);
  }
});

Deno.test("a phase without a single update writes nothing", () => {
  for (const isTerminal of [false, true]) {
    const { progress, written } = start({ total: 3, isTerminal });
    progress.finish();
    assert.deepEqual(written, []);
  }
});

Deno.test("durations", () => {
  const texts = [0, 499, 7000, 59_600, 754_000, 3_600_000, 36_723_000].map(formatDuration);
  assert.deepEqual(texts, ["0:00", "0:00", "0:07", "1:00", "12:34", "1:00:00", "10:12:03"]);
});
