/**
 * How this process was started: whether a launcher made it one rank of several, and which MPI the launcher speaks.
 * @module
 */
import { MpiUnavailableError } from "./errors.ts";

/** Families of MPI libraries whose binary interfaces differ. */
export type MpiFamily = "Open MPI" | "MPICH";

/** Reads a variable of the environment. */
export type Environment = (name: string) => string | undefined;

/** What a launcher said of the ranks that it started. */
export interface Launch {
  /** Number of ranks. */
  readonly ranks: number;
  /** Of the launcher; Slurm starts either. */
  readonly family?: MpiFamily;
  /** The variable that said so. */
  readonly variable: string;
}

/** Variables that launchers set for each rank, the surest first: Slurm sets its own beside those of PMI. */
const VARIABLES: readonly Omit<Launch, "ranks">[] = [
  { variable: "OMPI_COMM_WORLD_SIZE", family: "Open MPI" },
  { variable: "PMI_SIZE", family: "MPICH" },
  { variable: "SLURM_STEP_NUM_TASKS" },
];

/** Every variable of the environment that decides how ranks are joined. */
export const LAUNCH_VARIABLES: readonly string[] = [
  ...VARIABLES.map(({ variable }) => variable),
  "KEEL_MPI_LIBRARY",
];

/**
 * Finds out whether a launcher started this process.
 *
 * @param environment where launchers leave word
 * @returns what it said; nothing where no launcher did, or where Slurm started one task alone
 * @throws {MpiUnavailableError} when the number of ranks is none
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const launch = findLaunch((name) => name === "PMI_SIZE" ? "4" : undefined);
 * assert.deepEqual([launch?.ranks, launch?.family], [4, "MPICH"]);
 * ```
 */
export function findLaunch(environment: Environment): Launch | undefined {
  for (const { variable, family } of VARIABLES) {
    const value = environment(variable);
    if (value === undefined) continue;
    if (!/^[1-9]\d*$/.test(value)) {
      throw new MpiUnavailableError(
        `Cannot join ranks: expected their number in ${variable}, found "${value}"`,
      );
    }
    const ranks = Number(value);
    // A shell that Slurm started is such a task too, and runs programs that know nothing of MPI.
    if (family === undefined && ranks === 1) return undefined;
    return { variable, ranks, family };
  }
  return undefined;
}
