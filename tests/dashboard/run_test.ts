import assert from "node:assert/strict";
import { join } from "node:path";
import { effectiveSettings, parseRunConfig } from "../../train/config.ts";
import { readMetrics, startTraining, withFolder } from "./training.ts";

/** What a server answers to a request that is written as it stands: a browser sets some headers by itself. */
async function statusOf(url: string, { path, host }: { path: string; host: string }): Promise<number> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(request));
  const bytes = new Uint8Array(64);
  const count = await connection.read(bytes) ?? 0;
  return Number(/^HTTP\/1\.1 (\d+)/.exec(new TextDecoder().decode(bytes.subarray(0, count)))?.[1]);
}

Deno.test("a run with a dashboard that is looked at logs what one without does, bit for bit", async () => {
  await withFolder(async (folder) => {
    const flags = (
      name: string,
    ) => ["--max-steps", "40", "--eval-steps", "10", "--output", join(folder, name)];
    await using shown = startTraining(folder, [...flags("shown"), "--dashboard"]);
    const url = await shown.url;
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{48}\/$/);
    const { pathname, host, port } = new URL(url);
    assert.equal(await statusOf(url, { path: `${pathname}events`, host: `example.org:${port}` }), 403);
    assert.equal(await statusOf(url, { path: `/${"0".repeat(48)}/events`, host }), 404);
    const events = await (await fetch(`${url}events`)).text();
    assert.equal((await shown.end).code, 0);
    assert.match(events, /<td>global_step<\/td><td class=\\"number\\">40</);
    assert.match(events, /class=\\"state finished\\"/);
    assert.match(events, /event: end\ndata: null\n\n$/);
    await using plain = startTraining(folder, flags("plain"));
    assert.equal((await plain.end).code, 0);
    const records = await readMetrics(join(folder, "plain"));
    assert.equal(records.length, 40);
    assert.deepEqual(await readMetrics(join(folder, "shown")), records);
    const config = JSON.parse(await Deno.readTextFile(join(folder, "shown", "config.json")));
    assert.ok(!("dashboard" in config), "a run that goes on has a dashboard where it is asked for one");
  });
});

Deno.test("a port that is taken ends the command before anything is written", async () => {
  await withFolder(async (folder) => {
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = taken.addr;
    const output = join(folder, "run");
    await using run = startTraining(folder, [
      ...["--dashboard", "--dashboard-port", String(port), "--output", output],
    ]);
    const { code, out, error } = await run.end;
    assert.deepEqual([code, out], [1, ""]);
    assert.equal(
      error,
      `error: Cannot open the dashboard: expected 127.0.0.1:${port} to listen at, found it taken by another program ` +
        "(give another --dashboard-port, or 0 for any that is free)\n",
    );
    await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
  });
});

Deno.test("a run that fails or is stopped says so on its page, and ends as it would without one", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "model", "config.json"), "{}");
    await using run = startTraining(folder, ["--dashboard", "--output", join(folder, "run")]);
    const url = await run.url;
    const events = await (await fetch(`${url}events`)).text();
    const { code, error } = await run.end;
    assert.equal(code, 1);
    assert.match(error, /^error: Cannot /m);
    assert.match(events, /class=\\"state failed\\"/);
    assert.match(events, /Nothing was written/);
  });
});

Deno.test("--dashboard-port without --dashboard, and --dashboard where nothing is trained, are refused", () => {
  const source = { describe: ([key]: readonly string[]) => `--${key}` };
  const refuse = (raw: Record<string, unknown>, pattern: RegExp) =>
    assert.throws(() => parseRunConfig(raw, source), pattern);
  refuse({ dashboardPort: 80 }, /Cannot use --dashboardPort: expected --dashboard with it, found none/);
  refuse(
    { dashboard: true, dryRun: true },
    /Cannot use --dashboard: expected a run that trains, found --dryRun/,
  );
  refuse({ dashboard: true, inspect: true }, /found --inspect/);
  refuse({ dashboard: true, dashboardPort: 65536 }, /--dashboardPort/);
  const settings = effectiveSettings(parseRunConfig({ dashboard: true, dashboardPort: 0 }, source));
  assert.ok(!("dashboard" in settings || "dashboardPort" in settings));
});
