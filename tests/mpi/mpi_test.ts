/** Real jobs of several processes, by every launcher that is installed. */
import assert from "node:assert/strict";
import { ensureAdapter } from "../../train/software_driver.ts";
import { LAUNCH_VARIABLES } from "../../train/mpi/launch.ts";
import { assertClose } from "../ops/check_op.ts";
import { type Launcher, LAUNCHERS, runAlone, runJob } from "./launchers.ts";

/** Seconds that a job may take to end after a fault: most of them are Deno's start on a busy machine. */
const SOON_MS = 15_000;

/** All that ranks need besides what they do. */
const PERMISSIONS = ["--allow-ffi", `--allow-env=${LAUNCH_VARIABLES.join()}`];

for (const launcher of LAUNCHERS) {
  const { family, program } = launcher;
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test({ name: `${family}: ${name}${program ? "" : " (not installed)"}`, ignore: !program }, body);

  test("collective operations give every rank the same", () => testCollectives(launcher));

  test("ranks with other settings end before they start, with one line", async () => {
    const { code, stderr, elapsedMs } = await runJob(launcher, "disagree", { ranks: 3 });
    assert.equal(code, 1, stderr);
    const lines = stderr.split("\n").filter((line) => line.startsWith("Cannot"));
    assert.deepEqual(lines, [
      "Cannot start 3 ranks that differ from rank 0: rank 2: settings.beta: expected 0.1, found 0.2",
    ]);
    assert.ok(elapsedMs < SOON_MS, `${elapsedMs} ms`);
  });

  test("a rank that fails ends all, with its reason", async () => {
    const { code, stderr, elapsedMs } = await runJob(launcher, "fails", { ranks: 3 });
    assert.equal(code, 1, stderr);
    const lines = stderr.split("\n").filter((line) => line.startsWith("rank "));
    assert.deepEqual(lines, ["rank 1 of 3: Cannot count: expected one, found two"]);
    assert.ok(elapsedMs < SOON_MS, `${elapsedMs} ms`);
  });

  test("a rank that is killed ends all", async () => {
    const { code, stdout, stderr, elapsedMs } = await runJob(launcher, "dies", { ranks: 3 });
    assert.notEqual(code, 0);
    // MPICH's launcher names the process, not its rank, and says so on the other stream.
    assert.match([...stdout, stderr].join("\n"), family === "MPICH" ? /signal 9/ : /rank 1 .* signal 9/);
    assert.ok(elapsedMs < SOON_MS, `${elapsedMs} ms`);
  });

  test("a rank that hangs ends all, after the time that others wait", async () => {
    const { code, stderr, elapsedMs } = await runJob(launcher, "hangs", { ranks: 3 });
    assert.equal(code, 1, stderr);
    assert.match(
      stderr,
      /rank [02] of 3: Cannot finish MPI_Barrier: expected every rank within 2 s, found some/,
    );
    assert.ok(elapsedMs < SOON_MS, `${elapsedMs} ms`);
  });

  test("a rank that no launcher started is not taken for one of several", async () => {
    const [variable, other] = family === "MPICH"
      ? ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"]
      : ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
    const { code, stderr } = await runAlone("join", { [variable]: "3" });
    assert.equal(code, 1);
    assert.match(stderr, /Cannot join the 3 ranks that .* tells of: expected .* to know as many, found 1;/);

    const library = family === "MPICH" ? "libmpich.so.12" : "libmpi.so.40";
    const wrong = await runAlone("join", { [other]: "3", KEEL_MPI_LIBRARY: library });
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, new RegExp(`whose launcher started them, found ${family}.* in ${library}`));
  });
}

async function testCollectives(launcher: Launcher): Promise<void> {
  const { code, stdout, stderr } = await runJob(launcher, "collectives", {
    ranks: 3,
    permissions: PERMISSIONS,
  });
  assert.equal(code, 0, stderr);
  const results = stdout.map((line) => JSON.parse(line)).toSorted((a, b) => a.rank - b.rank);
  assert.deepEqual(results.map(({ rank }) => rank), [0, 1, 2]);
  for (const { rank, library, ...result } of results) {
    assert.ok(library.startsWith(launcher.family), library);
    assert.deepEqual(result, {
      size: 3,
      // The first was not given.
      floats: [rank, 1.5, -(0 + 1 + 2)],
      doubles: results[0].doubles,
      integers: [-2, 0],
      large: String(2n ** 53n * 2n),
      sent: [2, 7],
      gathered: ["", "111", "222222"],
    });
    assertClose(result.doubles, [0.6], { what: "the sum of doubles", rtol: 1e-15, atol: 0 });
  }
}

const [launcher] = LAUNCHERS.filter(({ program }) => program);
Deno.test({
  name: `two processes train as one, over 20 steps${launcher ? "" : " (no MPI installed)"}`,
  ignore: !launcher,
}, async () => {
  await ensureAdapter();
  const [alone] = (await runAlone("train")).stdout.map((line) => JSON.parse(line));
  const { code, stdout, stderr } = await runJob(launcher, "train", { ranks: 2 });
  assert.equal(code, 0, stderr);
  const [first, second] = stdout.map((line) => JSON.parse(line));
  assert.deepEqual(second, first, "the same bits in both");
  assert.notEqual(alone.losses[0], alone.losses[19]);
  // As between simulated ranks, in gradients_test.ts.
  assertClose(first.losses, alone.losses, { what: "losses", rtol: 1e-4 });
  assertClose(first.gradNorms, alone.gradNorms, { what: "gradient norms", rtol: 1e-4 });
});
