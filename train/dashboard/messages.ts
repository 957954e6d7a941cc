/**
 * What a run and its dashboard's thread say to each other.
 * @module
 */
import type { PhaseTiming, ProgressState } from "../progress_text.ts";

/** A phase as it stands; of phases within each other the innermost. */
export interface PhaseView extends PhaseTiming {
  readonly state: ProgressState;
}

/** How a run ended. */
export interface Outcome {
  readonly state: "finished" | "failed" | "stopped";
  /** What went wrong, or where it was stopped. */
  readonly message?: string;
}

/** What the run says. */
export type ToDashboard =
  | { readonly kind: "serve"; readonly port: number; readonly token: string }
  /** The run has its folder now. */
  | { readonly kind: "show"; readonly folder: string }
  /** There is something new in it. */
  | { readonly kind: "logged" }
  | { readonly kind: "phase"; readonly phase: PhaseView }
  | { readonly kind: "end"; readonly outcome: Outcome };

/** What its dashboard answers. */
export type FromDashboard =
  | { readonly kind: "ready"; readonly port: number }
  | { readonly kind: "refused"; readonly error: string; readonly message: string }
  /** After the end: every page has all of it. */
  | { readonly kind: "closed" };
