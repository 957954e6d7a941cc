/**
 * A run with a dashboard, where its settings ask for one.
 * @module
 */
import type { RunConfig } from "../config.ts";
import type { Progress } from "../progress.ts";
import { type RunHooks, RunStoppedError } from "../session.ts";
import { type Dashboard, openDashboard } from "./dashboard.ts";
import type { Outcome } from "./messages.ts";

/**
 * Runs something that its dashboard shows from before it starts until after it has ended.
 *
 * @param config of the run
 * @param hooks where its address is told
 * @param body the run; its hooks show phases on the dashboard too
 * @returns what the run returns
 * @throws {ConfigError} where the dashboard cannot listen; the run has not started then
 */
export async function withDashboard<Result>(
  config: Pick<RunConfig, "dashboard" | "dashboardPort">,
  hooks: RunHooks,
  body: (hooks: RunHooks, dashboard?: Dashboard) => Promise<Result>,
): Promise<Result> {
  if (!config.dashboard) return await body(hooks);
  const dashboard = await openDashboard({ port: config.dashboardPort ?? 0, log: hooks.log });
  hooks.log(`Dashboard: ${dashboard.url}`);
  const progress = (label: string, total: number) =>
    both(hooks.progress(label, total), dashboard.progress(label, total));
  try {
    const result = await body({ ...hooks, progress }, dashboard);
    await dashboard.end({ state: "finished" });
    return result;
  } catch (error) {
    await dashboard.end(outcomeOf(error));
    throw error;
  }
}

function both(first: Progress, second: Progress): Progress {
  return {
    update(state) {
      first.update(state);
      second.update(state);
    },
    finish() {
      first.finish();
      second.finish();
    },
  };
}

function outcomeOf(error: unknown): Outcome {
  const message = error instanceof Error ? error.message : String(error);
  return { state: error instanceof RunStoppedError ? "stopped" : "failed", message };
}
