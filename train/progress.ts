/**
 * The progress of phases: one line redrawn on a terminal, a few plain lines elsewhere. No colours.
 * @module
 */
import { advanceState, describeProgress, type ProgressState, type ProgressTexts } from "./progress_text.ts";

/** Shows how a phase advances. */
export interface Progress {
  /** Takes the new state and draws it where that is due. */
  update(state: ProgressState): void;
  /** Draws the last state for good and ends its line; nothing is drawn afterwards. */
  finish(): void;
}

/** Where bars are drawn. */
export interface Screen {
  /** Gets the text to print, as it is. */
  readonly write: (text: string) => void;
  /** Whether `write` goes to a terminal, where a line can be redrawn. */
  readonly isTerminal: boolean;
  /** Clock in milliseconds; `performance.now` where left out. */
  readonly now?: () => number;
  /** Width of the terminal, asked for at each redraw; 80 where it is unknown. */
  readonly columns?: () => number;
}

/** Bars that share a line: of a phase within another only the inner one is drawn, and its line goes with it. */
export interface Bars {
  /**
   * Starts to show a phase; its clock starts now.
   *
   * @param label name of the phase
   * @param total steps of the phase
   */
  start(label: string, total: number): Progress;
  /** Takes the bar away while other text is written to the same terminal. */
  aside(write: () => void): void;
}

/** A terminal is redrawn no more often than this. */
const REDRAW_MS = 100;
/** Off a terminal, a line is due after each such share of the steps. */
const PLAIN_LINES = 10;
/** And no more often than this: a phase that takes a moment has a first line and a last. */
const PLAIN_MS = 1000;
const DEFAULT_COLUMNS = 80;
const WIDEST_BAR = 30;
const NARROWEST_BAR = 8;
/** What a narrow terminal does without, in this order. */
const DROPPED_FIRST = ["elapsed", "memory", "speed"] as const;

/**
 * Makes the bars of one stream.
 *
 * @param screen where and how they are drawn
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * let text = "";
 * const bars = createBars({ write: (part) => { text += part; }, isTerminal: false, now: () => 0 });
 * const progress = bars.start("dpo", 4);
 * progress.update({ step: 1, loss: 0.6931, tokensPerSecond: 1200 });
 * progress.finish();
 * assert.equal(text, "dpo  1/4  loss 0.6931  1,200 tokens/s  0:00 elapsed\n");
 * ```
 */
export function createBars(screen: Screen): Bars {
  const now = screen.now ?? (() => performance.now());
  const line = screen.isTerminal ? terminalLine(screen) : plainLines(screen);
  const open: Bar[] = [];
  return {
    start(label, total) {
      const start = now();
      const bar: Bar = {
        total,
        isInner: open.length > 0,
        state: undefined,
        texts: () => describeProgress(bar.state!, { label, total, elapsedMs: now() - start }),
      };
      open.push(bar);
      return {
        update(next) {
          if (!open.includes(bar)) return;
          bar.state = advanceState(bar.state, next);
          if (bar === open.at(-1)) line.update(bar, now());
        },
        finish() {
          if (!open.includes(bar)) return;
          open.splice(open.indexOf(bar), 1);
          line.end(bar, open.at(-1));
        },
      };
    },
    aside: (write) => line.aside(write),
  };
}

interface Bar {
  readonly total: number;
  /** Whether it started within another. */
  readonly isInner: boolean;
  state: ProgressState | undefined;
  texts(): ProgressTexts;
}

interface Line {
  update(bar: Bar, at: number): void;
  /** @param outer the bar that goes on */
  end(bar: Bar, outer?: Bar): void;
  aside(write: () => void): void;
}

function terminalLine({ write, columns }: Screen): Line {
  let lastDraw = -Infinity;
  let shown = "";
  function draw(bar: Bar): void {
    // The last column stays free: some terminals break the line as soon as it is filled.
    const width = Math.max(1, (columns?.() || DEFAULT_COLUMNS) - 1);
    const line = fitLine(bar.texts(), bar.state!.step / bar.total, { width });
    write(`\r${line.padEnd(Math.min(shown.length, width))}`);
    shown = line;
  }
  const clear = () => {
    if (shown !== "") write(`\r${" ".repeat(shown.length)}\r`);
    shown = "";
  };
  return {
    update(bar, at) {
      if (at - lastDraw < REDRAW_MS && bar.state!.step < bar.total) return;
      lastDraw = at;
      draw(bar);
    },
    end(bar, outer) {
      if (outer) return outer.state ? draw(outer) : clear();
      if (!bar.state) return clear();
      draw(bar);
      write("\n");
      shown = "";
    },
    aside(body) {
      const before = shown;
      clear();
      body();
      if (before !== "") write(`\r${before}`);
      shown = before;
    },
  };
}

function plainLines({ write }: Screen): Line {
  const drawn = new WeakMap<Bar, { step: number; at: number }>();
  const tenthOf = (step: number, { total }: Bar) => Math.floor(step * PLAIN_LINES / total);
  const draw = (bar: Bar, at: number) => {
    drawn.set(bar, { step: bar.state!.step, at });
    write(`${Object.values(bar.texts()).join("  ")}\n`);
  };
  return {
    // The first update is always due: a long run shows early that it works.
    update(bar, at) {
      // What comes again and again within a phase would bury its lines.
      if (bar.isInner) return;
      const last = drawn.get(bar);
      const isDue = !last ||
        (at - last.at >= PLAIN_MS && tenthOf(bar.state!.step, bar) > tenthOf(last.step, bar));
      if (isDue) draw(bar, at);
    },
    end(bar) {
      if (!bar.isInner && bar.state && bar.state.step !== drawn.get(bar)?.step) draw(bar, 0);
    },
    aside: (write) => write(),
  };
}

/** The bar takes the room that is left and goes where there is too little; so do the less telling numbers, then the end. */
function fitLine(texts: ProgressTexts, share: number, { width }: { width: number }): string {
  const kept: Partial<ProgressTexts> = { ...texts };
  const words = () => Object.values(kept).join("  ");
  for (const name of DROPPED_FIRST) {
    if (words().length > width) delete kept[name];
  }
  const { label, ...rest } = kept;
  const room = Math.min(WIDEST_BAR, width - words().length - "[]  ".length);
  if (room < NARROWEST_BAR) return words().slice(0, width);
  const full = Math.floor(Math.min(1, share) * room);
  return [label, `[${"#".repeat(full)}${"-".repeat(room - full)}]`, ...Object.values(rest)].join("  ");
}
