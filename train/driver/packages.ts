/**
 * Chooses which packages the software driver needs, from what apt prints.
 *
 * apt resolves the whole closure against an empty system, so that nothing which happens to be installed here hides a
 * dependency. Of that closure only libraries are taken: a driver package also depends on interpreters and tools of the
 * package manager, which no library loads.
 * @module
 */

/** One package that apt chose, with the parts of its control record that matter here. */
export interface PackageRecord {
  /** The package's name, without architecture. */
  name: string;
  /** The version that apt chose. */
  version: string;
  /** Each entry one dependency; each dependency the names that satisfy it, best first. */
  depends: string[][];
  /** Names that this package satisfies besides its own. */
  provides: string[];
}

// Every Debian or Ubuntu that runs Deno and apt has these, and a second copy of the C library in one process is fatal.
const ASSUMED_PACKAGES: ReadonlySet<string> = new Set(["libc6", "libgcc-s1", "libgcc1", "libstdc++6"]);
const LIBRARY_PACKAGE = /^(lib|zlib|mesa-)/;

/**
 * Parses `apt-get install --print-uris`: one line per package, `'URI' name_version_arch.deb size hash`.
 *
 * @param output what apt-get printed
 * @returns the packages, each `name=version`
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parsePrintedUris } from "./packages.ts";
 *
 * const line = "'http://host/z.deb' zlib1g_1%3a1.2.13_amd64.deb 86684 MD5Sum:ec42";
 * assert.deepEqual(parsePrintedUris(line), ["zlib1g=1:1.2.13"]);
 * ```
 */
export function parsePrintedUris(output: string): string[] {
  const packages: string[] = [];
  for (const [, name, version] of output.matchAll(/^'[^']+' ([^_\s]+)_([^_\s]+)_[^_\s]+\.deb\b/gm)) {
    packages.push(`${name}=${decodeURIComponent(version)}`);
  }
  return packages;
}

/**
 * Parses the control records that `apt-cache show` prints.
 *
 * @param output what apt-cache printed: records of `Field: value` lines, an empty line between two records
 * @returns the records in order, one per package name (the first wins)
 */
export function parsePackageRecords(output: string): PackageRecord[] {
  const records = new Map<string, PackageRecord>();
  for (const block of output.split(/\n{2,}/)) {
    const field = (name: string) =>
      block.match(new RegExp(`^${name}:((?:.*)(?:\\n[ \\t].*)*)`, "m"))?.[1].trim() ?? "";
    const name = field("Package");
    if (name === "" || records.has(name)) continue;
    records.set(name, {
      name,
      version: field("Version"),
      depends: [...parseRelations(field("Pre-Depends")), ...parseRelations(field("Depends"))],
      provides: parseRelations(field("Provides")).flat(),
    });
  }
  return [...records.values()];
}

// "a (>= 1), b:any | c [amd64]" -> [["a"], ["b", "c"]]
function parseRelations(value: string): string[][] {
  const names = (group: string) =>
    group.split("|").map((part) => part.trim().replace(/[\s:([].*$/s, "")).filter((name) => name !== "");
  return value.split(",").map(names).filter((group) => group.length > 0);
}

/**
 * Walks from the wanted packages through the library packages that they depend on.
 *
 * @param records the closure as apt chose it
 * @param wanted the names to start from
 * @returns the packages to unpack, each `name=version`, sorted
 * @throws {RangeError} where a library dependency is in none of the records
 */
export function choosePackages(records: readonly PackageRecord[], wanted: readonly string[]): string[] {
  const byName = new Map(records.map((record) => [record.name, record]));
  const find = (name: string) => byName.get(name) ?? records.find((record) => record.provides.includes(name));
  const isLibrary = (name: string) => LIBRARY_PACKAGE.test(name) && !ASSUMED_PACKAGES.has(name);
  const chosen = new Set<PackageRecord>();
  const pending: string[][] = wanted.map((name) => [name]);
  for (let group = pending.pop(); group !== undefined; group = pending.pop()) {
    const record = group.map(find).find((found) => found !== undefined);
    if (record === undefined) {
      if (!group.every(isLibrary)) continue;
      throw new RangeError(
        `Cannot choose driver packages: expected one of ${group.join(", ")}, found none of them`,
      );
    }
    if (!isLibrary(record.name) || chosen.has(record)) continue;
    chosen.add(record);
    pending.push(...record.depends);
  }
  return [...chosen].map(({ name, version }) => `${name}=${version}`).sort();
}
