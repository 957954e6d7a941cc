/**
 * The dashboard of a run: a local page that shows its figures while it goes on.
 * @module
 */
import { ConfigError } from "../errors.ts";
import type { MetricsSink } from "../metrics_sink.ts";
import type { Progress } from "../progress.ts";
import { advanceState } from "../progress_text.ts";
import type { FromDashboard, Outcome, PhaseView, ToDashboard } from "./messages.ts";

/** A run's dashboard. Nothing that happens to it ends the run. */
export interface Dashboard {
  /** The page's address: whoever has it may look. */
  readonly url: string;
  /** Told of what is logged, once it is in the run's metrics.jsonl. */
  readonly sink: MetricsSink;
  /** Takes the run's folder, once it is there and holds nothing of another run. */
  show(folder: string): void;
  /** Shows a phase. */
  progress(label: string, total: number): Progress;
  /** Shows how the run ended, to whoever listens, and closes the server. */
  end(outcome: Outcome): Promise<void>;
}

/** What has to be guessed: 192 bits. */
const TOKEN_BYTES = 24;
/** A page that does not take what it is sent is not waited for longer. */
const CLOSE_MS = 3000;

/**
 * Opens the dashboard, on a thread of its own: on the run's thread nothing is drawn.
 *
 * Needs permission to listen (`--allow-net=127.0.0.1`) and to read Keel's modules and the run's folder.
 *
 * @param options.port to listen at; 0 takes any that is free
 * @param options.log told if it breaks later
 * @returns the dashboard, which listens
 * @throws {ConfigError} where it cannot listen there
 */
export async function openDashboard(
  { port, log }: { port: number; log: (line: string) => void },
): Promise<Dashboard> {
  const token = crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)).toHex();
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "dashboard" });
  let isReady = false;
  let isBroken = false;
  const post = (message: ToDashboard) => {
    if (!isBroken) worker.postMessage(message);
  };
  const closed = Promise.withResolvers<void>();
  const ready = Promise.withResolvers<number>();
  worker.onmessage = ({ data: message }: MessageEvent<FromDashboard>) => {
    if (message.kind === "ready") ready.resolve(message.port);
    else if (message.kind === "refused") ready.reject(cannotListen(port, message));
    else closed.resolve();
  };
  worker.onerror = (event) => {
    event.preventDefault();
    isBroken = true;
    closed.resolve();
    ready.reject(cannotListen(port, { error: "Error", message: event.message }));
    if (isReady) log(`The dashboard has ended, the run goes on: ${event.message}`);
  };
  post({ kind: "serve", port, token });
  try {
    const url = `http://127.0.0.1:${await ready.promise}/${token}/`;
    isReady = true;
    return { url, ...connect(post), end };
  } catch (error) {
    worker.terminate();
    throw error;
  }
  async function end(outcome: Outcome): Promise<void> {
    post({ kind: "end", outcome });
    const timer = setTimeout(closed.resolve, CLOSE_MS);
    await closed.promise;
    clearTimeout(timer);
    worker.terminate();
  }
}

/** What a run tells its dashboard. */
function connect(post: (message: ToDashboard) => void): Pick<Dashboard, "sink" | "show" | "progress"> {
  const open: (Omit<PhaseView, "elapsedMs"> & { start: number })[] = [];
  const postInnermost = () => {
    const phase = open.at(-1);
    if (!phase) return;
    const { start, ...view } = phase;
    post({ kind: "phase", phase: { ...view, elapsedMs: performance.now() - start } });
  };
  return {
    sink: { append: () => post({ kind: "logged" }), flush() {}, close() {}, [Symbol.dispose]() {} },
    show: (folder) => post({ kind: "show", folder }),
    progress(label, total) {
      let phase = { label, total, state: { step: 0 }, start: performance.now() };
      open.push(phase);
      postInnermost();
      return {
        update(state) {
          const place = open.indexOf(phase);
          if (place < 0) return;
          open[place] = phase = { ...phase, state: advanceState(phase.state, state) };
          if (place === open.length - 1) postInnermost();
        },
        finish() {
          const place = open.indexOf(phase);
          if (place < 0) return;
          open.splice(place, 1);
          postInnermost();
        },
      };
    },
  };
}

function cannotListen(port: number, { error, message }: { error: string; message: string }): ConfigError {
  const place = port === 0 ? "a port of 127.0.0.1" : `127.0.0.1:${port}`;
  const found = error === "AddrInUse"
    ? "it taken by another program (give another --dashboard-port, or 0 for any that is free)"
    : message;
  return new ConfigError(`Cannot open the dashboard: expected ${place} to listen at, found ${found}`);
}
