/**
 * The launchers of this machine, and jobs that they start.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import type { MpiFamily } from "../../train/mpi/launch.ts";

const RANK = fileURLToPath(new URL("rank.ts", import.meta.url));

/** Names that mpirun has where both families are installed, and where one is. */
const PROGRAMS = ["mpirun.openmpi", "mpirun.mpich", "mpirun"];

/** What `--version` says of itself. */
const SIGNS: Readonly<Record<MpiFamily, RegExp>> = { "Open MPI": /Open MPI/, MPICH: /HYDRA/ };

/**
 * Tests have more ranks than small machines have cores, and may run in a container, as root. Open MPI ties each of two
 * ranks to one core unless told otherwise, with all its threads; a software adapter has a thread for each core. A rank
 * that waits must leave its core to those that work.
 */
const ARGUMENTS: Readonly<Record<MpiFamily, readonly string[]>> = {
  "Open MPI": [
    "--oversubscribe",
    "--bind-to",
    "none",
    "--mca",
    "mpi_yield_when_idle",
    "1",
    "--allow-run-as-root",
  ],
  MPICH: [],
};

/** A launcher. */
export interface Launcher {
  readonly family: MpiFamily;
  /** Nothing where it is not installed. */
  readonly program?: string;
}

/** Both families. */
export const LAUNCHERS: readonly Launcher[] = findLaunchers();

function findLaunchers(): Launcher[] {
  const versions = new Map(PROGRAMS.map((program) => [program, versionOf(program)]));
  return (Object.keys(SIGNS) as MpiFamily[]).map((family) => ({
    family,
    program: PROGRAMS.find((program) => SIGNS[family].test(versions.get(program)!)),
  }));
}

function versionOf(program: string): string {
  try {
    const { stdout } = new Deno.Command(program, { args: ["--version"] }).outputSync();
    return new TextDecoder().decode(stdout);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/** How a job ended. */
export interface JobResult {
  readonly code: number;
  /** Lines of all ranks, in any order. */
  readonly stdout: string[];
  readonly stderr: string;
  readonly elapsedMs: number;
}

/**
 * Runs a part of rank.ts on several ranks.
 *
 * @param launcher What starts it.
 * @param part Its name.
 * @param options.ranks How many.
 * @param options.permissions Of Deno; all by default.
 */
export async function runJob(
  { family, program }: Launcher,
  part: string,
  { ranks, permissions = ["-A"] }: { ranks: number; permissions?: readonly string[] },
): Promise<JobResult> {
  const start = performance.now();
  const rank = [Deno.execPath(), "run", "-q", ...permissions, RANK, part];
  const result = await run(program!, [...ARGUMENTS[family], "-n", String(ranks), ...rank]);
  return { ...result, elapsedMs: performance.now() - start };
}

/**
 * Runs a part of rank.ts in a process that no launcher started.
 *
 * @param part Its name.
 * @param env Added to this process's variables.
 */
export function runAlone(
  part: string,
  env: Record<string, string> = {},
): Promise<Omit<JobResult, "elapsedMs">> {
  return run(Deno.execPath(), ["run", "-q", "-A", RANK, part], env);
}

async function run(
  program: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<Omit<JobResult, "elapsedMs">> {
  const command = new Deno.Command(program, { args, env: { NO_COLOR: "1", ...env }, stdin: "null" });
  const { code, stdout, stderr } = await command.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: out.split("\n").filter((line) => line !== ""), stderr: err };
}
