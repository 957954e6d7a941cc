/**
 * A run's metrics as TensorBoard's event files.
 * @module
 */
import { join } from "node:path";
import { HELD_OUT_PREFIX } from "../held_out.ts";
import type { MetricsRecord } from "../metrics.ts";
import type { MetricsSink } from "../metrics_sink.ts";
import { type AppendedFile, openAppended } from "../run_folder.ts";
import { cannotWrite } from "../write_error.ts";
import { encodeEvent, type Event, stepOf } from "./event.ts";
import { frameRecord, readRecords } from "./tf_record.ts";

/** The folder of a run that holds them; `tensorboard --logdir` takes it, or a folder of several runs. */
export const TENSORBOARD_FOLDER = "tensorboard";

/** `events.out.tfevents.<seconds since 1970>.keel`. TensorBoard knows event files by the part before the time. */
const EVENT_FILE = /^events\.out\.tfevents\.([0-9]+)\.keel$/;

/** How events are written. */
export interface TensorBoardOptions {
  /** Whether steps are counted anew in each phase, which then is a run of its own: a folder named as the phase. */
  readonly isByPhase: boolean;
  /** Of a run that goes on: the last step of which the metrics are kept. Events of later ones are taken back. */
  readonly resumedAfter?: number;
  /** Milliseconds since 1970; Date.now by default. */
  readonly now?: () => number;
}

/**
 * Writes every number of a record as a scalar at the record's step, named as transformers' TensorBoardCallback names
 * them: `eval_loss` is `eval/loss`, anything else `train/` and its name. One event holds all numbers of a record.
 *
 * @param folder made where it does not exist
 * @param options how
 * @returns the sink; each record is with the system before `append` returns
 * @throws {InputError} naming the file that cannot be written
 * @example
 * ```ts
 * const folder = await Deno.makeTempDir();
 * using sink = openTensorBoard(folder, { isByPhase: false, now: () => 1_764_000_000_000 });
 * sink.append({ phase: "dpo", global_step: 10, loss: 0.69 });
 * const [{ name }] = Deno.readDirSync(folder);
 * if (name !== "events.out.tfevents.1764000000.keel") throw new Error("named by the time");
 * ```
 */
export function openTensorBoard(folder: string, options: TensorBoardOptions): MetricsSink {
  const now = options.now ?? Date.now;
  const files = new Map<string, AppendedFile>();
  const fileOf = (phase: string) => {
    const place = options.isByPhase ? join(folder, phaseFolder(phase)) : folder;
    const file = files.get(place) ?? openEvents(place, { ...options, now });
    files.set(place, file);
    return file;
  };
  const close = () => files.forEach((file) => file.close());
  return {
    append(record) {
      const step = Number(record.global_step);
      const event = { wallTime: now() / 1000, step, scalars: scalarsOf(record) };
      fileOf(String(record.phase)).append(framed(event));
    },
    flush: () => files.forEach((file) => file.flush()),
    close,
    [Symbol.dispose]: close,
  };
}

/** The step is the event's own, and the phase no number. */
function scalarsOf(record: MetricsRecord): Record<string, number> {
  return Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) =>
      typeof value === "number" && name !== "global_step" ? [[tagOf(name), value]] : []
    ),
  );
}

/** As `rewrite_logs` of transformers/integrations/integration_utils.py. */
function tagOf(name: string): string {
  return name.startsWith(HELD_OUT_PREFIX) ? `eval/${name.slice(HELD_OUT_PREFIX.length)}` : `train/${name}`;
}

/** Names of losses, with `+` and commas; anything else could mean something to the file system. */
function phaseFolder(phase: string): string {
  return phase.replaceAll(/[^A-Za-z0-9_+,-]/g, "_");
}

function openEvents(
  folder: string,
  { resumedAfter, now }: Pick<TensorBoardOptions, "resumedAfter"> & { now: () => number },
): AppendedFile {
  const wallTime = now() / 1000;
  const earlier = listEvents(folder);
  if (resumedAfter !== undefined) {
    for (const { path } of earlier) takeBack(path, resumedAfter);
  }
  // TensorBoard reads a folder's files in the order of their names, and a later one must not sort before.
  const seconds = Math.max(Math.floor(wallTime), 1 + (earlier.at(-1)?.seconds ?? 0));
  const file = openAppended(join(folder, `events.out.tfevents.${seconds}.keel`));
  file.append(framed({ wallTime, step: 0, fileVersion: "brain.Event:2" }));
  // For a TensorBoard that is open, and has read what was taken back.
  if (resumedAfter !== undefined) file.append(framed({ wallTime, step: resumedAfter + 1, isStart: true }));
  return file;
}

function listEvents(folder: string): { path: string; seconds: number }[] {
  try {
    Deno.mkdirSync(folder, { recursive: true });
    return [...Deno.readDirSync(folder)].flatMap(({ name }) => {
      const seconds = EVENT_FILE.exec(name)?.[1];
      return seconds === undefined ? [] : [{ path: join(folder, name), seconds: Number(seconds) }];
    }).toSorted((a, b) => a.seconds - b.seconds);
  } catch (cause) {
    throw cannotWrite(folder, cause);
  }
}

/** Cuts a file before its first event of a later step: TensorBoard's data server heeds no event that says so. */
function takeBack(path: string, lastStep: number): void {
  try {
    let keepBytes = 0;
    for (const { payload, end } of readRecords(Deno.readFileSync(path))) {
      if (stepOf(payload) > lastStep) break;
      keepBytes = end;
    }
    Deno.truncateSync(path, keepBytes);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

function framed(event: Event): Uint8Array {
  return frameRecord(encodeEvent(event));
}
