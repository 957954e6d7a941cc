import assert from "node:assert/strict";
import { singleRank } from "../../train/mpi/communicator.ts";
import { DisagreementError, MpiUnavailableError } from "../../train/mpi/errors.ts";
import { agree } from "../../train/mpi/agreement.ts";
import { runRank } from "../../train/mpi/job.ts";
import { findLaunch } from "../../train/mpi/launch.ts";
import { joinRanks } from "../../train/mpi/mpi.ts";
import { simulatedRanks } from "./simulated_ranks.ts";

const environment = (variables: Record<string, string>) => (name: string) => variables[name];

Deno.test("launchers are told apart by the variables that they set", () => {
  const found = (variables: Record<string, string>) => findLaunch(environment(variables));
  assert.deepEqual(found({ OMPI_COMM_WORLD_SIZE: "2", PMI_SIZE: "3" }), {
    ...{ variable: "OMPI_COMM_WORLD_SIZE", family: "Open MPI", ranks: 2 },
  });
  assert.deepEqual(found({ PMI_SIZE: "12", SLURM_STEP_NUM_TASKS: "12" })?.family, "MPICH");
  assert.deepEqual(found({ SLURM_STEP_NUM_TASKS: "8" }), {
    ...{ variable: "SLURM_STEP_NUM_TASKS", family: undefined, ranks: 8 },
  });
  assert.equal(found({ SLURM_STEP_NUM_TASKS: "1" }), undefined, "a shell that Slurm started");
  assert.equal(found({}), undefined);
  for (const value of ["0", "-1", "two", "", "1e3"]) {
    assert.throws(() => found({ PMI_SIZE: value }), MpiUnavailableError);
  }
});

Deno.test("a library that is not there is refused by name", () => {
  const join = () =>
    joinRanks({ environment: environment({ PMI_SIZE: "2", KEEL_MPI_LIBRARY: "no_such.so" }) });
  assert.throws(
    join,
    /^MpiUnavailableError: Cannot join the 2 ranks .* found none called no_such\.so; KEEL_MPI/,
  );
});

Deno.test("every rank learns of every rank that differs from the first", async () => {
  const identities = [{ seed: 0, data: ["ab"] }, { data: ["ab"], seed: 0 }, { seed: 1, data: ["cd"] }, {
    data: ["ab"],
  }];
  const ranks = simulatedRanks(identities.length);
  const errors = await Promise.all(
    ranks.map((rank) => agree(rank, identities[rank.rank]).catch((error: unknown) => error)),
  );
  for (const error of errors) {
    assert(error instanceof DisagreementError);
    assert.deepEqual(error.message.split("\n"), [
      'Cannot start 4 ranks that differ from rank 0: rank 2: seed: expected 0, found 1; data: expected ["ab"], found ["cd"]',
      "Cannot start 4 ranks that differ from rank 0: rank 3: seed: expected 0, found nothing",
    ]);
  }
  await Promise.all(simulatedRanks(2).map((rank) => agree(rank, identities[rank.rank])));
});

Deno.test("a rank's end: what it did, said and returned", async () => {
  const run = async (size: number, body: () => void) => {
    const events: string[] = [];
    const [rank] = simulatedRanks(size);
    const communicator = {
      ...(size === 1 ? singleRank() : rank),
      abort: (code: number) => void events.push(`abort ${code}`),
      finalize: () => void events.push("finalize"),
    };
    const code = await runRank(communicator, body, (line) => events.push(line));
    return [...events, code];
  };
  const fail = (error: Error) => () => {
    throw error;
  };
  assert.deepEqual(await run(2, () => {}), ["finalize", 0]);
  assert.deepEqual(await run(2, fail(new Error("no"))), ["rank 0 of 2: no", "abort 1", 1]);
  assert.deepEqual(await run(1, fail(new Error("no"))), ["no", 1]);
  assert.deepEqual(await run(2, fail(new DisagreementError("a\nb"))), ["a", "b", "finalize", 1]);
});
