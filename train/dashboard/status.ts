/**
 * What a dashboard says of a run above its figures.
 * @module
 */
import { describeProgress } from "../progress_text.ts";
import { escapeHtml } from "../report/escape.ts";
import type { Outcome, PhaseView } from "./messages.ts";

/** A run as far as is known. */
export interface RunStatus {
  /** Its folder, once it has one. */
  readonly folder?: string;
  readonly phase?: PhaseView;
  readonly outcome?: Outcome;
}

/**
 * The page's title: what can be read in a tab.
 *
 * @param status of the run
 */
export function statusTitle({ phase, outcome }: RunStatus): string {
  if (outcome) return `${outcome.state} - Keel`;
  if (!phase) return "starting - Keel";
  return `${Math.floor(100 * phase.state.step / phase.total)} % ${phase.label} - Keel`;
}

/**
 * The top of the page.
 *
 * @param status of the run
 * @returns HTML in which every text is shown as it is
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const phase = { label: "dpo", total: 4, elapsedMs: 1000, state: { step: 1, loss: 0.5 } };
 * assert.match(statusHtml({ phase }), /<progress max="4" value="1"/);
 * ```
 */
export function statusHtml({ folder, phase, outcome }: RunStatus): string {
  const name = folder?.split(/[\\/]/).filter((part) => part !== "").at(-1);
  return [
    `<h1>${name === undefined ? "Run" : `Run ${escapeHtml(name)}`}</h1>`,
    ...(folder === undefined ? [] : [`<p class="subtitle">${escapeHtml(folder)}</p>`]),
    outcome ? outcomeHtml(outcome, folder) : `<p class="state under-way">Under way</p>`,
    ...(phase ? [phaseHtml(phase, outcome !== undefined)] : []),
  ].join("\n");
}

const ENDS = { finished: "Finished", failed: "Failed", stopped: "Stopped" } as const;

function outcomeHtml({ state, message }: Outcome, folder: string | undefined): string {
  const again = folder === undefined
    ? "Nothing was written."
    : `Nothing follows: this page keeps what it shows, and deno task report ${folder} makes a file of it.`;
  return [
    `<p class="state ${state}">${ENDS[state]}</p>`,
    ...(message === undefined ? [] : [`<p>${escapeHtml(message)}</p>`]),
    `<p class="note">${escapeHtml(again)}</p>`,
  ].join("\n");
}

function phaseHtml({ state, ...timing }: PhaseView, isLast: boolean): string {
  const { left, ...known } = describeProgress(state, timing);
  const shown = [...Object.values(known), ...(left === undefined || isLast ? [] : [left])];
  const texts = shown.map((text) => `<li>${escapeHtml(text)}</li>`);
  return `<ul class="phase">${texts.join("")}</ul>\n` +
    `<progress max="${timing.total}" value="${state.step}" aria-label="${
      escapeHtml(timing.label)
    }"></progress>`;
}
