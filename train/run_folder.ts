/**
 * The folder that a run writes: config.json, metrics.jsonl and model/. Nothing of anyone else's is ever removed from it.
 * @module
 */
import { join } from "node:path";
import project from "../deno.json" with { type: "json" };
import { writeFileAtomically } from "./atomic_file.ts";
import { InputError, showFound } from "./errors.ts";
import { makeNewFolder } from "./file_system.ts";
import { LOCK_FILE, lockFolder, refuseLocked } from "./folder_lock.ts";
import { cannotWrite, faultOf } from "./write_error.ts";

/** Key of a run's config.json that holds the version of Keel; tells a run from other folders with a config.json. */
export const STAMP_KEY = "keelVersion";

/** What a run's folder holds besides its config.json. */
const RUN_ENTRIES = ["metrics.jsonl", "model"];
/** Every effective setting of a run. */
export const CONFIG_FILE = "config.json";
/** What a killed run leaves of a file that was being written. */
const PARTIAL_FILE = /^.+\.[0-9]+\.partial$/;

/** What a run's folder may hold. */
export interface RunFolderOptions {
  /** Replace an earlier run. */
  readonly overwrite: boolean;
  /** Names of files and folders that runs write, besides config.json; metrics.jsonl and model where left out. */
  readonly entries?: readonly string[];
}

/**
 * Checks that a run could be written to a folder, and changes nothing: for before the long work.
 *
 * @param path the run's folder
 * @param options whether an earlier run may be there
 * @throws {InputError} on anything that is there, except an empty folder or, with overwrite, a run and nothing else; and
 * on a folder that another process has locked
 */
export async function checkRunFolder(path: string, options: RunFolderOptions): Promise<void> {
  await findEarlierRun(path, options);
  await refuseLocked(path);
}

/**
 * Makes a run's folder, empty, and locks it. With overwrite an earlier run in it is removed, if there is nothing else
 * beside it.
 *
 * @param path the run's folder; its parents are made too
 * @param options whether an earlier run may be replaced
 * @returns the lock; dispose it when the run has ended
 * @throws {InputError} as {@link checkRunFolder}, and where the folder cannot be made
 */
export async function prepareRunFolder(path: string, options: RunFolderOptions): Promise<Disposable> {
  if (await findEarlierRun(path, options) === undefined) await makeRunFolder(path);
  using stack = new DisposableStack();
  const lock = stack.use(await lockFolder(path));
  // Looked at again: another run may have come and gone since.
  await clearFolder(path, await findEarlierRun(path, options) ?? []);
  stack.move();
  return lock;
}

async function makeRunFolder(path: string): Promise<void> {
  try {
    await makeNewFolder(path);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

async function clearFolder(path: string, names: readonly string[]): Promise<void> {
  try {
    // config.json last: a folder cleared halfway is still known as a run.
    for (const name of names.toSorted((a, b) => Number(a === CONFIG_FILE) - Number(b === CONFIG_FILE))) {
      await Deno.remove(join(path, name), { recursive: true });
    }
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

/**
 * The first free name of a run: base, base-2, base-3 and so on.
 *
 * @param runsDir folder of all runs; need not exist
 * @param base name of the run
 * @returns a name that nothing in the folder has
 * @throws {InputError} where the folder cannot be looked into
 */
export async function nextRunName(runsDir: string, base: string): Promise<string> {
  for (let count = 1;; count++) {
    const name = count === 1 ? base : `${base}-${count}`;
    try {
      await Deno.lstat(join(runsDir, name));
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) return name;
      throw cannotWrite(join(runsDir, name), cause);
    }
  }
}

/** Where runs without a folder of the user's go. */
const RUNS_FOLDER = "runs";

/**
 * The folder of a run: the one that its settings name, else the next free one in runs/.
 *
 * @param config settings of the run
 * @throws {InputError} where the folder of all runs cannot be looked into
 */
export async function chooseRunFolder(
  config: {
    readonly output?: string;
    readonly model?: string;
    readonly data?: string;
    readonly loss: string;
  },
): Promise<string> {
  if (config.output !== undefined) return config.output;
  const isDemo = config.model === undefined && config.data === undefined;
  return join(RUNS_FOLDER, await nextRunName(RUNS_FOLDER, isDemo ? "arithmetic" : config.loss));
}

/**
 * Writes a run's config.json: the stamp of this version, then the settings.
 *
 * @param folder the run's folder
 * @param settings every effective setting
 * @throws {InputError} where it cannot be written
 */
export async function writeRunConfig(
  folder: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<void> {
  await writeJson(join(folder, CONFIG_FILE), { [STAMP_KEY]: project.version, ...settings });
}

/**
 * Writes a JSON file, whole or not at all.
 *
 * @param path its folder must exist
 * @param value what JSON can hold
 * @throws {InputError} where it cannot be written
 */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
  await writeFileAtomically(path, (append) => append(bytes));
}

/** A file of one JSON object per line. */
export interface MetricsFile extends Disposable {
  /**
   * Adds a line.
   *
   * @param record keys that are undefined are left out
   * @throws {RangeError} on a number that JSON cannot hold
   * @throws {InputError} where it cannot be written, of which nothing stays, or the file was removed
   */
  append(record: Readonly<Record<string, unknown>>): void;
  /**
   * Waits until what was added is on the disk: a checkpoint must not outlive the lines that it counts on.
   *
   * @returns the file's length
   */
  flush(): number;
  /** Closes the file; a second call does nothing. */
  close(): void;
}

/**
 * Opens a metrics file to add lines at its end. Each line is handed to the system whole before `append` returns, so a
 * run that is killed keeps what it logged.
 *
 * @param path made where it does not exist; its folder must
 * @param options.keepBytes what stays of the file, whose later lines are written again; all by default
 * @throws {InputError} where it cannot be opened, or is shorter than that
 */
export function openMetrics(path: string, options: { keepBytes?: number } = {}): MetricsFile {
  const file = openAppended(path, options);
  const encoder = new TextEncoder();
  return {
    ...file,
    append: (record) => file.append(encoder.encode(`${JSON.stringify(record, finiteOnly)}\n`)),
  };
}

/** A file that grows at its end. */
export interface AppendedFile extends Disposable {
  /** Hands bytes to the system, all of them before it returns. */
  append(bytes: Uint8Array): void;
  /**
   * Waits until what was added is on the disk.
   *
   * @returns the file's length
   */
  flush(): number;
  /** Closes the file; a second call does nothing. */
  close(): void;
}

/**
 * Opens a file to add bytes at its end.
 *
 * @param path made where it does not exist; its folder must
 * @param options.keepBytes what stays of the file; all by default
 * @throws {InputError} where it cannot be opened, or is shorter than that; as its functions do where they cannot write
 */
export function openAppended(path: string, options: { keepBytes?: number } = {}): AppendedFile {
  const file = openToAppend(path);
  let bytesSoFar = 0;
  try {
    bytesSoFar = cutToLength(file, path, options.keepBytes);
  } catch (cause) {
    file.close();
    throw cannotWrite(path, cause);
  }
  let isOpen = true;
  const close = () => {
    if (isOpen) file.close();
    isOpen = false;
  };
  return {
    append(bytes) {
      requireInPlace(file, path);
      try {
        for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
        bytesSoFar += bytes.length;
      } catch (cause) {
        takeBack(file, bytesSoFar);
        throw cannotWrite(path, cause);
      }
    },
    flush() {
      try {
        file.syncSync();
      } catch (cause) {
        throw cannotWrite(path, cause);
      }
      return bytesSoFar;
    },
    close,
    [Symbol.dispose]: close,
  };
}

function cutToLength(file: Deno.FsFile, path: string, keepBytes?: number): number {
  const { size } = file.statSync();
  if (keepBytes === undefined || keepBytes === size) return size;
  if (keepBytes > size) {
    throw new InputError(
      `Cannot go on with ${path}: expected at least the ${keepBytes} bytes that it had at the checkpoint, found ${size}`,
    );
  }
  file.truncateSync(keepBytes);
  return keepBytes;
}

/** A file that was removed still takes lines, which nobody would ever see. */
function requireInPlace(file: Deno.FsFile, path: string): void {
  const { ino, dev } = file.statSync();
  let found: Deno.FileInfo | undefined;
  try {
    found = Deno.statSync(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cannotWrite(path, cause);
  }
  if (found && found.ino === ino && found.dev === dev) return;
  throw new InputError(
    `Cannot write to ${path}: expected the file that was opened, found ${found ? "another" : "none"}`,
  );
}

/** Of a line that went in by half, nothing stays. */
function takeBack(file: Deno.FsFile, sizeBytes: number): void {
  try {
    file.truncateSync(sizeBytes);
  } catch {
    // That it cannot be cut either only follows from the first error.
  }
}

function openToAppend(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { append: true, create: true });
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

/** JSON would write null for these, and no reader could tell why. */
function finiteOnly(key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError(`Cannot log ${key}: expected a finite number, found ${value}`);
  }
  return value;
}

/** The names in the folder where it may be used, or undefined where there is none. */
async function findEarlierRun(path: string, options: RunFolderOptions): Promise<string[] | undefined> {
  const names = await listFolder(path);
  if (names === undefined || names.length === 0) return names;
  if (!options.overwrite) {
    throw new InputError(
      `Cannot write to ${path}: expected a new or empty folder, found files in it ` +
        "(use --overwrite to replace an earlier run, or another --output)",
    );
  }
  const isRun = await hasStamp(join(path, CONFIG_FILE));
  const entries = [CONFIG_FILE, ...(options.entries ?? RUN_ENTRIES)];
  const stranger = names.find((name) => !isRun || !(entries.includes(name) || PARTIAL_FILE.test(name)));
  if (stranger !== undefined) {
    const expected = isRun ? "a run and nothing else" : "a run of Keel";
    throw new InputError(
      `Cannot overwrite ${path}: expected ${expected}, found ${showFound(stranger)} (use another --output)`,
    );
  }
  return names;
}

async function listFolder(path: string): Promise<string[] | undefined> {
  try {
    const names = await Array.fromAsync(Deno.readDir(path), (entry) => entry.name);
    // Any run may leave it, also one that was killed before it wrote anything.
    return names.filter((name) => name !== LOCK_FILE).sort();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cannotWrite(path, cause);
    return undefined;
  }
}

async function hasStamp(configFile: string): Promise<boolean> {
  let text: string;
  try {
    text = await Deno.readTextFile(configFile);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.IsADirectory) return false;
    throw new InputError(`Cannot read ${configFile}: expected a readable file, found ${faultOf(cause)}`, {
      cause,
    });
  }
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && Object.hasOwn(value, STAMP_KEY);
  } catch (cause) {
    if (cause instanceof SyntaxError) return false;
    throw cause;
  }
}
