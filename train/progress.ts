/**
 * A training phase's progress: one line redrawn on a terminal, a few plain lines elsewhere. No colours.
 * @module
 */

/** Where a phase stands. A number that is left out keeps the value of the update before. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  readonly loss?: number;
  readonly tokensPerSecond?: number;
}

/** Shows how a phase advances. */
export interface Progress {
  /** Takes the new state and draws it where that is due. */
  update(state: ProgressState): void;
  /** Writes a line of other text above the bar. */
  log(line: string): void;
  /** Draws the last state for good and ends its line; nothing is drawn afterwards. */
  finish(): void;
}

/** How a phase is shown. */
export interface ProgressOptions {
  /** Steps of the phase. */
  readonly total: number;
  /** Name of the phase. */
  readonly label: string;
  /** Gets the text to print, as it is. */
  readonly write: (text: string) => void;
  /** Whether `write` goes to a terminal, where a line can be redrawn. */
  readonly isTerminal: boolean;
  /** Clock in milliseconds; `performance.now` where left out. */
  readonly now?: () => number;
  /** Width of the terminal, asked for at each redraw; 80 where it is unknown. */
  readonly columns?: () => number;
}

/** A terminal is redrawn no more often than this. */
const REDRAW_MS = 100;
/** Off a terminal, a line is due after each such share of the steps. */
const PLAIN_LINES = 10;
const DEFAULT_COLUMNS = 80;
const WIDEST_BAR = 30;
const NARROWEST_BAR = 8;

/**
 * Starts to show a phase; its clock starts now.
 *
 * @param options the phase, and where and how it is shown
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * let text = "";
 * const write = (part: string) => { text += part; };
 * const progress = createProgress({ total: 4, label: "dpo", write, isTerminal: false, now: () => 0 });
 * progress.update({ step: 1, loss: 0.6931, tokensPerSecond: 1200 });
 * progress.finish();
 * assert.equal(text, "dpo  1/4  loss 0.6931  1,200 tokens/s  0:00 elapsed\n");
 * ```
 */
export function createProgress(options: ProgressOptions): Progress {
  const { total, label, write } = options;
  const now = options.now ?? (() => performance.now());
  const start = now();
  const screen = options.isTerminal ? terminalScreen(options) : plainScreen(write);
  let state: ProgressState | undefined;
  let finished = false;
  const texts = () => describe(state!, { total, label, elapsedMs: now() - start });
  return {
    update(next) {
      if (finished) return;
      state = { ...state, ...definedOf(next) };
      if (screen.isDue({ step: state.step, total, at: now() })) screen.draw(texts(), state.step / total);
    },
    log(line) {
      screen.log(line);
    },
    finish() {
      if (finished) return;
      finished = true;
      if (state) screen.end(texts(), state.step / total);
    },
  };
}

/** The parts of a line: the bar goes between the first and the others. */
type Texts = readonly string[];

interface Screen {
  isDue(at: { step: number; total: number; at: number }): boolean;
  draw(texts: Texts, share: number): void;
  end(texts: Texts, share: number): void;
  log(line: string): void;
}

function terminalScreen({ write, columns }: ProgressOptions): Screen {
  let lastDraw = -Infinity;
  let shown = "";
  function draw(texts: Texts, share: number): void {
    // The last column stays free: some terminals break the line as soon as it is filled.
    const width = Math.max(1, (columns?.() || DEFAULT_COLUMNS) - 1);
    const line = fitLine(texts, share, { width });
    write(`\r${line.padEnd(Math.min(shown.length, width))}`);
    shown = line;
  }
  return {
    isDue({ step, total, at }) {
      if (at - lastDraw < REDRAW_MS && step < total) return false;
      lastDraw = at;
      return true;
    },
    draw,
    end(texts, share) {
      draw(texts, share);
      write("\n");
      shown = "";
    },
    log(line) {
      write(shown === "" ? `${line}\n` : `\r${line.padEnd(shown.length)}\n${shown}`);
    },
  };
}

function plainScreen(write: (text: string) => void): Screen {
  let lastTenth = -1;
  let shownStep = "";
  const draw = (texts: Texts) => {
    shownStep = texts[1];
    write(`${texts.join("  ")}\n`);
  };
  return {
    // The first update is always due: a long run shows early that it works.
    isDue({ step, total }) {
      const tenth = Math.floor(step * PLAIN_LINES / total);
      const isDue = tenth > lastTenth;
      lastTenth = Math.max(lastTenth, tenth);
      return isDue;
    },
    draw,
    end(texts) {
      if (texts[1] !== shownStep) draw(texts);
    },
    log: (line) => write(`${line}\n`),
  };
}

function definedOf(state: ProgressState): ProgressState {
  return Object.fromEntries(
    Object.entries(state).filter(([, value]) => value !== undefined),
  ) as unknown as ProgressState;
}

function describe(
  { step, loss, tokensPerSecond }: ProgressState,
  { total, label, elapsedMs }: { total: number; label: string; elapsedMs: number },
): Texts {
  const texts = [label, `${step}/${total}`];
  if (loss !== undefined) texts.push(`loss ${loss.toFixed(4)}`);
  if (tokensPerSecond !== undefined) {
    texts.push(`${Math.round(tokensPerSecond).toLocaleString("en-US")} tokens/s`);
  }
  texts.push(`${formatDuration(elapsedMs)} elapsed`);
  const isUnderWay = step > 0 && step < total && elapsedMs > 0;
  if (isUnderWay) texts.push(`${formatDuration(elapsedMs / step * (total - step))} left`);
  return texts;
}

/** The bar takes the room that is left, goes where there is too little, and the end is cut where even that is not enough. */
function fitLine([label, ...rest]: Texts, share: number, { width }: { width: number }): string {
  const words = [label, ...rest].join("  ");
  const room = Math.min(WIDEST_BAR, width - words.length - "[]  ".length);
  if (room < NARROWEST_BAR) return words.slice(0, width);
  const full = Math.floor(Math.min(1, share) * room);
  return [label, `[${"#".repeat(full)}${"-".repeat(room - full)}]`, ...rest].join("  ");
}

/**
 * A duration as `0:07`, `12:34` or `1:02:03`.
 *
 * @param ms milliseconds, rounded to seconds
 */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(seconds / 3600);
  return hours > 0 ? [hours, ...parts].join(":") : parts.join(":").replace(/^0/, "");
}
