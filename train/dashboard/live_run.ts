/**
 * A run that is looked at while it goes on: its folder's report and its state, sent to everyone who listens.
 * @module
 */
import { configurationHtml, sectionHtml } from "../report/page.ts";
import { readRunSoFar } from "../report/read_run.ts";
import { runsReport } from "../report/runs_report.ts";
import { type Broadcast, createBroadcast } from "./broadcast.ts";
import type { Outcome, PhaseView } from "./messages.ts";
import { statusHtml, statusTitle } from "./status.ts";
import { createThrottle } from "./throttle.ts";

/** A run that is shown. */
export interface LiveRun extends Pick<Broadcast, "subscribe"> {
  /** Takes the run's folder, which is its own from now on. */
  show(folder: string): void;
  /** Takes that something was written to the folder. */
  logged(): void;
  /** Takes where the run stands. */
  phase(phase: PhaseView): void;
  /** Shows everything a last time, and ends every listener's events. */
  end(outcome: Outcome): Promise<void>;
}

/** From one drawing of the figures to the next. */
const FIGURES_MS = 1000;
/** From one state to the next. */
const STATE_MS = 250;
/** A step may take long: the time that has passed is shown anyway. */
const TICK_MS = 1000;

/** Shows a run. Nothing is drawn while no one listens. */
export function createLiveRun(): LiveRun {
  let figures: ReadonlyMap<string, string> = new Map();
  let folder: string | undefined;
  let phase: PhaseView | undefined;
  let phaseAt = 0;
  let outcome: Outcome | undefined;
  const broadcast = createBroadcast(() => {
    state.request();
    drawing.request();
  });
  const publish = () => {
    const passedMs = outcome ? 0 : performance.now() - phaseAt;
    const status = {
      ...{ folder, outcome },
      phase: phase && { ...phase, elapsedMs: phase.elapsedMs + passedMs },
    };
    const parts = new Map([["status", statusHtml(status)], ...figures]);
    broadcast.publish({ title: statusTitle(status), parts });
  };
  const state = createThrottle(() => {
    if (broadcast.listeners > 0) publish();
  }, { leastMs: STATE_MS });
  const drawing = createThrottle(async () => {
    if (broadcast.listeners === 0 || folder === undefined) return;
    figures = await drawFolder(folder);
    publish();
  }, { leastMs: FIGURES_MS });
  const ticks = setInterval(() => state.request(), TICK_MS);
  return {
    subscribe: broadcast.subscribe,
    show(path) {
      folder = path;
      drawing.request();
    },
    logged: () => drawing.request(),
    phase(next) {
      [phase, phaseAt] = [next, performance.now()];
      state.request();
    },
    async end(how) {
      clearInterval(ticks);
      if (phase) phase = { ...phase, elapsedMs: phase.elapsedMs + performance.now() - phaseAt };
      outcome = how;
      await drawing.finish();
      await state.finish();
      broadcast.end();
    },
  };
}

/**
 * Draws the report of a run's folder as it is now.
 *
 * @param folder of the run
 * @returns its sections as HTML, by id; none as long as nothing is logged
 */
export async function drawFolder(folder: string): Promise<Map<string, string>> {
  try {
    const run = await readRunSoFar(folder);
    if (!run) return new Map();
    const { sections, configuration } = runsReport([run]);
    // Who looks on wants the curves: tables, which are long, come after them.
    const ordered = sections.toSorted((a, b) => Number(!a.figures?.length) - Number(!b.figures?.length));
    const parts = ordered.map((section) => {
      const id = section.title.toLowerCase().replaceAll(/[^a-z]+/g, "-");
      return [id, sectionHtml(section, `${id}-title`)] as const;
    });
    return new Map([...parts, ["configuration", configurationHtml(configuration ?? {})]]);
  } catch (error) {
    // The run itself writes these files, and says what is wrong with them; looking on must not end.
    const paragraphs = [error instanceof Error ? error.message : String(error)];
    return new Map([[
      "problem",
      sectionHtml({ title: "The figures cannot be drawn", paragraphs }, "problem-title"),
    ]]);
  }
}
