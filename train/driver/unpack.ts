/**
 * Downloads and unpacks the software driver (Mesa's lavapipe) into a folder of the user, with the machine's own
 * package sources, without root and without a change to the system.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { AdapterUnavailableError, DRIVER_PACKAGES } from "./adapter_unavailable.ts";
import { type DriverStamp, readStamp, STAMP_FORMAT } from "./driver_folder.ts";
import { choosePackages, parsePackageRecords, parsePrintedUris } from "./packages.ts";

// A set-up takes a minute even on a slow line; an older temporary folder belongs to one that was killed.
const ABANDONED_AFTER_MS = 3_600_000;
const MOVE_ATTEMPTS = 5;

/**
 * Unpacks the driver. The folder appears whole or not at all: the work is done in a sibling folder that is renamed at
 * the end, and of several set-ups at once the first to finish wins.
 *
 * @param folder where the driver shall be
 * @throws {AdapterUnavailableError} where apt-get, the network or the disk does not play along
 */
export async function unpackDriver(folder: string): Promise<void> {
  const parent = dirname(folder);
  await Deno.mkdir(parent, { recursive: true });
  await removeAbandoned(parent);
  const work = await Deno.makeTempDir({ dir: parent, prefix: `.${basename(folder)}-` });
  try {
    const root = join(work, "driver");
    const packages = await unpackPackages(work);
    const stamp: DriverStamp = { format: STAMP_FORMAT, packages };
    await Deno.writeTextFile(join(root, "stamp.json"), JSON.stringify(stamp, null, 2) + "\n");
    await moveIntoPlace(root, folder);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

async function unpackPackages(work: string): Promise<string[]> {
  const architecture = (await runTool("dpkg", ["--print-architecture"])).trim();
  const apt = await privateApt(work, architecture);
  // One unreachable source among several is no reason to stop: the next step says what is missing.
  const update = await apt("apt-get", ["update"], { mayFail: true });
  const wanted = DRIVER_PACKAGES.apt;
  let closure: string[];
  try {
    closure = parsePrintedUris(await apt("apt-get", ["install", "--yes", "--print-uris", ...wanted]));
  } catch (error) {
    throw new AdapterUnavailableError(`apt-get found no ${wanted.join(" ")} (${complaint(update)})`, {
      cause: error,
    });
  }
  const records = parsePackageRecords(await apt("apt-cache", ["show", "--no-all-versions", ...closure]));
  const packages = choosePackages(records, wanted);
  await apt("apt-get", ["download", ...packages]);
  const root = join(work, "driver");
  await Deno.mkdir(root);
  for await (const entry of Deno.readDir(join(work, "debs"))) {
    if (entry.name.endsWith(".deb")) {
      await runTool("dpkg-deb", ["--extract", join(work, "debs", entry.name), root]);
    }
  }
  return packages;
}

type AptRunner = (tool: string, args: string[], options?: { mayFail?: boolean }) => Promise<string>;

// apt with lists, caches and an empty package status of its own; only the sources and keys are the machine's.
async function privateApt(work: string, architecture: string): Promise<AptRunner> {
  const [state, cache, debs] = ["state", "cache", "debs"].map((name) => join(work, name));
  for (const folder of [join(state, "lists", "partial"), join(cache, "archives", "partial"), debs]) {
    await Deno.mkdir(folder, { recursive: true });
  }
  await Deno.writeTextFile(join(state, "status"), "");
  const configFile = join(work, "apt.conf");
  await Deno.writeTextFile(configFile, aptConfig(architecture));
  // Options, not the file, for paths: apt's configuration syntax cannot quote a quotation mark.
  const paths = [`Dir::State=${state}`, `Dir::State::status=${join(state, "status")}`, `Dir::Cache=${cache}`];
  const common = ["--config-file", configFile, ...paths.flatMap((option) => ["-o", option]), "-q"];
  return (tool, args, options) => runTool(tool, [...common, ...args], { ...options, cwd: debs });
}

function aptConfig(architecture: string): string {
  return [
    "#clear APT::Update;", // hooks of the machine, which touch the system's own caches
    "#clear APT::Architectures;",
    `APT::Architecture "${architecture}";`,
    `APT::Architectures { "${architecture}"; };`,
    'APT::Install-Recommends "false";',
    'APT::Sandbox::User "root";', // the download user of apt cannot enter a private folder of root
    'Acquire::Languages "none";',
    'Acquire::Retries "1";',
    'Acquire::http::Timeout "20";',
    'Acquire::https::Timeout "20";',
    ...["DEP-11", "DEP-11-icons", "DEP-11-icons-small", "CNF", "Contents-deb"]
      .map((target) => `Acquire::IndexTargets::deb::${target}::DefaultEnabled "false";`),
  ].join("\n") + "\n";
}

async function runTool(
  tool: string,
  args: string[],
  options: { cwd?: string; mayFail?: boolean } = {},
): Promise<string> {
  const env = { LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command(tool, { args, cwd: options.cwd, env, stdin: "null" }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new AdapterUnavailableError(
      `the software driver needs Debian's or Ubuntu's ${tool}, which is not on PATH`,
      { cause: error },
    );
  }
  const decoder = new TextDecoder();
  const [stdout, stderr] = [decoder.decode(result.stdout), decoder.decode(result.stderr)];
  if (options.mayFail) return stdout + stderr;
  if (result.success) return stdout;
  throw new AdapterUnavailableError(`${tool} failed (${complaint(stderr)})`);
}

// The first complaint names the cause (a host that cannot be reached); what follows are its consequences.
function complaint(text: string): string {
  const lines = text.trim().split("\n");
  return lines.find((line) => /^[EW]:/.test(line)) ?? (lines.at(-1) || "it printed nothing");
}

// Renaming is atomic, so the folder at `to` is always a whole one, or one that lost its stamp and is of no use.
async function moveIntoPlace(from: string, to: string): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await Deno.rename(from, to);
    } catch (error) {
      if (readStamp(to) !== undefined) return; // another set-up finished first
      if (attempt === MOVE_ATTEMPTS) throw error;
      await moveAside(to, `${from}.replaced-${attempt}`);
    }
  }
}

async function moveAside(from: string, to: string): Promise<void> {
  try {
    await Deno.rename(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // another set-up moved it first
  }
}

async function removeAbandoned(parent: string): Promise<void> {
  for await (const entry of Deno.readDir(parent)) {
    if (!entry.isDirectory || !entry.name.startsWith(".")) continue;
    const path = join(parent, entry.name);
    try {
      const modified = (await Deno.stat(path)).mtime?.getTime() ?? Date.now();
      if (Date.now() - modified > ABANDONED_AFTER_MS) await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // another set-up removed it first
    }
  }
}
