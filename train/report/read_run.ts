/**
 * What a run has written: for a report, with every line checked.
 * @module
 */
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { InputError, showFound } from "../errors.ts";
import { describeIssue } from "../issue.ts";
import type { MetricsRecord } from "../metrics.ts";
import { type Sample, sampleSchema } from "../samples.ts";
import type { PhaseResult } from "../session.ts";

/** A run's folder, read. */
export interface RunFiles {
  /** The folder's name. */
  readonly name: string;
  readonly folder: string;
  /** Of metrics.jsonl, in order; at least one. */
  readonly records: readonly MetricsRecord[];
  /** Whether the last line of metrics.jsonl was cut off: the run was killed, or is running. */
  readonly isCutOff: boolean;
  /** Of config.json. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Of results.json, which a run writes at its end. */
  readonly results?: { readonly adapter: string; readonly results: readonly PhaseResult[] };
  /** Of samples.jsonl, in order. */
  readonly samples: readonly Sample[];
}

const recordSchema = z.looseObject({
  phase: z.string().optional(),
  global_step: z.number().min(0),
}).catchall(z.union([z.number(), z.string()]));

const resultsSchema = z.looseObject({
  adapter: z.string(),
  results: z.array(z.looseObject({
    phase: z.string(),
    isReference: z.boolean(),
    exactMatch: z.number().optional(),
    outOfDistributionMass: z.number().optional(),
    evaluation: z.looseObject({
      logpsChosen: z.number(),
      logpsRejected: z.number(),
      chosenDelta: z.number(),
      rejectedDelta: z.number(),
      rewardMargin: z.number(),
      rewardAccuracy: z.number().optional(),
    }),
  })),
});

/**
 * Reads a run's folder.
 *
 * @param folder with a metrics.jsonl; config.json, results.json and samples.jsonl may be missing
 * @returns the run; a last line without its end, which a killed run leaves, is left out and told
 * @throws {InputError} naming file and line, or key, of what is not as a run writes it
 */
export async function readRun(folder: string): Promise<RunFiles> {
  const metrics = await readText(join(folder, METRICS_FILE));
  if (metrics === undefined) {
    throw new InputError(
      `Cannot report on ${folder}: expected a run's folder with ${METRICS_FILE}, found none there`,
    );
  }
  const run = await readFiles(folder, metrics);
  if (run.records.length > 0) return run;
  throw new InputError(`Cannot report on ${folder}: expected logged steps in ${METRICS_FILE}, found none`);
}

/**
 * Reads the folder of a run that may have just started.
 *
 * @param folder of the run
 * @returns as {@link readRun}, or nothing as long as nothing is logged
 * @throws {InputError} as {@link readRun}
 */
export async function readRunSoFar(folder: string): Promise<RunFiles | undefined> {
  const run = await readFiles(folder, await readText(join(folder, METRICS_FILE)) ?? "");
  return run.records.length > 0 ? run : undefined;
}

const METRICS_FILE = "metrics.jsonl";

async function readFiles(folder: string, metrics: string): Promise<RunFiles> {
  const file = join(folder, METRICS_FILE);
  const { values: records, isCutOff } = parseLines(metrics, { file, schema: recordSchema });
  const config = await readJson(join(folder, "config.json"), z.looseObject({}));
  const results = await readJson(join(folder, "results.json"), resultsSchema);
  const samples = join(folder, "samples.jsonl");
  return {
    name: basename(resolve(folder)),
    folder,
    records: records as MetricsRecord[],
    isCutOff,
    ...(config ? { config } : {}),
    ...(results ? { results } : {}),
    samples: parseLines(await readText(samples) ?? "", { file: samples, schema: sampleSchema }).values,
  };
}

/**
 * The records of a metrics.jsonl.
 *
 * @param text of the file
 * @param file its name, for errors
 * @throws {InputError} naming file and line of what is no record
 */
export function parseMetrics(text: string, file: string): MetricsRecord[] {
  return parseLines(text, { file, schema: recordSchema }).values as MetricsRecord[];
}

function parseLines<Value>(
  text: string,
  { file, schema }: { file: string; schema: z.ZodType<Value> },
): { values: Value[]; isCutOff: boolean } {
  const lines = text.split("\n");
  // A whole file ends with a line end, and so with an empty piece.
  const last = lines.pop()!;
  const values = lines.map((line, index) => parseLine(line, { file, line: index + 1, schema }));
  if (last.trim() === "") return { values, isCutOff: false };
  // A killed run may have written the line and not its end.
  if (!isJson(last)) return { values, isCutOff: true };
  return { values: [...values, parseLine(last, { file, line: lines.length + 1, schema })], isCutOff: false };
}

function parseLine<Value>(
  text: string,
  { file, line, schema }: { file: string; line: number; schema: z.ZodType<Value> },
): Value {
  const place = `${file}, line ${line}`;
  if (!isJson(text)) {
    throw new InputError(`Cannot read ${place}: expected a JSON object, found ${showFound(text)}`);
  }
  return check(JSON.parse(text), { place, schema });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    // The caller says what is wrong, with its place.
    return false;
  }
}

function check<Value>(value: unknown, { place, schema }: { place: string; schema: z.ZodType<Value> }): Value {
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  const found = issue.path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown>)?.[key],
    value,
  );
  const key = issue.path.length > 0 ? `, key ${issue.path.join(".")}` : "";
  throw new InputError(
    `Cannot read ${place}${key}: expected ${describeIssue(issue)}, found ${showFound(found)}`,
  );
}

async function readJson<Value>(file: string, schema: z.ZodType<Value>): Promise<Value | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  if (!isJson(text)) {
    throw new InputError(`Cannot read ${file}: expected JSON, found ${showFound(text.slice(0, 80))}`);
  }
  return check(JSON.parse(text), { place: file, schema });
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(file);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InputError(`Cannot read ${file}: expected a file of a run, found ${reason}`, { cause });
  }
}
