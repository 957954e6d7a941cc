import assert from "node:assert/strict";
import type { Score } from "../../examples/score_service.ts";
import { startExample } from "./run_example.ts";

const RIGHT = { prompt: "fad:", chosen: "adf", rejected: "fda" };
const SWAPPED = { ...RIGHT, chosen: "fda", rejected: "adf" };
const JSON_TYPE = { "content-type": "application/json" };

/** The service in its own process, on a port that the system chooses; stopped by the test that is given it. */
async function withService(
  test: (service: { url: string; child: Deno.ChildProcess; text: () => string }) => Promise<void>,
): Promise<void> {
  const child = startExample("score_service.ts", ["--port", "0"]);
  let text = "";
  let isOpen = false;
  const listening = Promise.withResolvers<string>();
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    for await (const part of stream.pipeThrough(new TextDecoderStream())) {
      text += part;
      const url = /Listening on (\S+)/.exec(text)?.[1];
      if (url) listening.resolve(url);
    }
  };
  const outputs = Promise.all([collect(child.stdout), collect(child.stderr)]);
  outputs.then(() => listening.reject(new Error(text)));
  child.status.then(() => isOpen = false);
  try {
    const url = await listening.promise;
    isOpen = true;
    await test({ url, child, text: () => text });
  } finally {
    if (isOpen) child.kill("SIGKILL");
    await child.status;
    await outputs;
  }
}

function post(url: string, body: BodyInit, headers: Record<string, string> = JSON_TYPE): Promise<Response> {
  return fetch(`${url}/score`, { method: "POST", body, headers });
}

async function expectScores(url: string): Promise<void> {
  const one: Score = await (await post(url, JSON.stringify(RIGHT))).json();
  assert.equal(one.preferred, "chosen");
  assert.ok(one.logps.chosen > -2 && one.logps.rejected < -5, JSON.stringify(one));
  assert.equal(one.margin, one.logps.chosen - one.logps.rejected);
  const response = await post(url, JSON.stringify([SWAPPED, RIGHT, { ...RIGHT, rejected: "adf" }]));
  const several: Score[] = await response.json();
  assert.deepEqual(several.map(({ preferred }) => preferred), ["rejected", "chosen", "neither"]);
  assert.ok(Math.abs(several[0].margin + one.margin) < 1e-4, "the same answers, the other way round");
}

async function expectRefusals(url: string): Promise<void> {
  const refusals: [BodyInit, number, RegExp, Record<string, string>?][] = [
    ["{", 400, /JSON/],
    [Uint8Array.of(0x22, 0xff, 0x22), 400, /UTF-8/],
    ["[]", 400, />=1/],
    [JSON.stringify(Array(65).fill(RIGHT)), 400, /<=64/],
    [JSON.stringify({ ...RIGHT, chosen: undefined }), 400, /: chosen: .*string/],
    [JSON.stringify([RIGHT, { ...RIGHT, rejected: 3 }]), 400, /: 1\.rejected: .*number/],
    [JSON.stringify({ ...RIGHT, prompt: "" }), 400, /: prompt: /],
    [JSON.stringify({ ...RIGHT, beta: 1 }), 400, /beta/],
    [JSON.stringify({ ...RIGHT, chosen: "a".repeat(20) }), 400, /1 to 16 tokens/],
    [JSON.stringify({ ...RIGHT, prompt: "a".repeat(20) }), 400, /16 tokens/],
    [" ".repeat(64 * 1024 + 1), 413, /65536 bytes/],
    ["a=1", 415, /application\/json/, { "content-type": "application/x-www-form-urlencoded" }],
  ];
  for (const [body, status, message, headers] of refusals) {
    const response = await post(url, body, headers);
    const { error } = await response.json();
    assert.equal(response.status, status, error);
    assert.match(error, /^Cannot answer: /);
    assert.match(error, message);
  }
  const other = await fetch(`${url}/score`);
  assert.deepEqual([other.status, other.headers.get("allow")], [405, "POST"]);
  await other.body?.cancel();
  const nowhere = await fetch(`${url}/constructor`);
  assert.equal(nowhere.status, 404);
  await nowhere.body?.cancel();
}

async function expectQueue(url: string): Promise<void> {
  const body = JSON.stringify(Array(64).fill(RIGHT));
  const responses = await Promise.all(Array.from({ length: 100 }, () => post(url, body)));
  const found = await Promise.all(
    responses.map(async (response) => ({ response, json: await response.json() })),
  );
  const answered = found.filter(({ response }) => response.status === 200);
  const refused = found.filter(({ response }) => response.status === 503);
  assert.equal(answered.length + refused.length, found.length);
  assert.ok(
    answered.length >= 32 && refused.length > 0,
    `${answered.length} answered, ${refused.length} refused`,
  );
  for (const { json } of answered) assert.deepEqual(json, answered[0].json);
  for (const { response } of refused) assert.equal(response.headers.get("retry-after"), "1");
}

Deno.test("score_service.ts answers, refuses, queues, and ends after the last answer", async () => {
  await withService(async ({ url, child, text }) => {
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);
    await expectScores(url);
    await expectRefusals(url);
    await expectQueue(url);
    const health = await (await fetch(`${url}/health`)).json();
    assert.deepEqual([health.status, health.model, health.openRequests], ["ok", "llama", 0]);
    await expectLastAnswer(url, child);
    assert.match(text(), /Stopped\n$/);
  });
});

/** A request whose body is still coming when the signal does is answered; later ones are not taken. */
async function expectLastAnswer(url: string, child: Deno.ChildProcess): Promise<void> {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const answer = post(url, readable);
  const bytes = new TextEncoder().encode(JSON.stringify(RIGHT));
  await writer.write(bytes.subarray(0, 10));
  await healthUntil(url, ({ openRequests }) => openRequests === 1);
  child.kill(Deno.build.os === "windows" ? "SIGINT" : "SIGTERM");
  await healthUntil(url, ({ error }) => /stopping/.test(error ?? ""));
  const late = await post(url, JSON.stringify(RIGHT));
  assert.match((await late.json()).error, /stopping/);
  assert.equal(late.status, 503);
  await writer.write(bytes.subarray(10));
  await writer.close();
  const last = await (await answer).json();
  assert.equal(last.preferred, "chosen", JSON.stringify(last));
  assert.equal((await child.status).code, 0);
}

async function healthUntil(
  url: string,
  isReached: (health: { openRequests?: number; error?: string }) => boolean,
): Promise<void> {
  while (!isReached(await (await fetch(`${url}/health`)).json())) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
