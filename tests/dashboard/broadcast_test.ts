import assert from "node:assert/strict";
import { createBroadcast, type LiveContent } from "../../train/dashboard/broadcast.ts";
import { statusHtml } from "../../train/dashboard/status.ts";
import { createThrottle } from "../../train/dashboard/throttle.ts";

const content = (parts: Record<string, string>): LiveContent => ({
  title: "t",
  parts: new Map(Object.entries(parts)),
});

/** Reads events one by one. */
function listen(stream: ReadableStream<Uint8Array>) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  return {
    async next() {
      const { value, done } = await reader.read();
      if (done) return "closed";
      const data = /^event: update\ndata: (.*)\n\n$/.exec(value)?.[1];
      return data === undefined ? value : JSON.parse(data);
    },
    cancel: () => reader.cancel(),
  };
}

Deno.test("a listener gets everything, then what changes, then the end; one that comes again gets everything", async () => {
  let came = 0;
  const broadcast = createBroadcast(() => came++);
  const first = listen(broadcast.subscribe());
  assert.match(await first.next(), /^retry: \d+\n\n$/);
  broadcast.publish(content({ status: "1", loss: "a" }));
  const whole = { title: "t", order: ["status", "loss"], html: { status: "1", loss: "a" } };
  assert.deepEqual(await first.next(), whole);
  broadcast.publish(content({ status: "2", loss: "a" }));
  assert.deepEqual(await first.next(), { ...whole, html: { status: "2" } });
  await first.cancel();
  assert.equal(broadcast.listeners, 0);
  const again = listen(broadcast.subscribe());
  await again.next();
  assert.deepEqual(await again.next(), { ...whole, html: { status: "2", loss: "a" } });
  broadcast.publish(content({ status: "3" }));
  broadcast.end();
  assert.deepEqual(await again.next(), { title: "t", order: ["status"], html: { status: "3" } });
  assert.equal(await again.next(), "event: end\ndata: null\n\n");
  assert.equal(await again.next(), "closed");
  assert.equal(came, 2);
});

Deno.test("what a listener does not read is not kept: it gets the newest when it reads again", async () => {
  const broadcast = createBroadcast(() => {});
  const stream = broadcast.subscribe();
  for (let step = 1; step <= 1000; step++) broadcast.publish(content({ status: String(step) }));
  broadcast.end();
  const parts = await Array.fromAsync(stream.pipeThrough(new TextDecoderStream()));
  assert.ok(parts.length <= 4, `${parts.length} events`);
  assert.match(parts.at(-2)!, /"status":"1000"/);
});

Deno.test("throttled work is never doubled, takes its share at most, and has a last time", async () => {
  const starts: number[] = [];
  let isRunning = false;
  const throttle = createThrottle(async () => {
    assert.equal(isRunning, false);
    isRunning = true;
    starts.push(performance.now());
    await new Promise((resolve) => setTimeout(resolve, 20));
    isRunning = false;
  }, { leastMs: 1 });
  const asking = setInterval(() => throttle.request(), 1);
  await new Promise((resolve) => setTimeout(resolve, 700));
  clearInterval(asking);
  const gaps = starts.slice(1).map((start, index) => start - starts[index]);
  assert.ok(gaps.length >= 1, "it is done more than once");
  assert.ok(gaps.every((gap) => gap >= 190), `20 ms of work every ${gaps.map(Math.round)} ms`);
  const before = starts.length;
  throttle.request();
  await throttle.finish();
  throttle.request();
  await new Promise((resolve) => setTimeout(resolve, 250));
  assert.equal(starts.length, before + 1);
});

Deno.test("a state shows every text as it is", () => {
  const hostile = `<img src=x onerror="alert(1)">&'`;
  const phase = { label: hostile, total: 2, elapsedMs: 1000, state: { step: 1 } };
  assert.match(statusHtml({ phase }), /0:01 left/);
  for (const state of ["finished", "failed", "stopped"] as const) {
    const html = statusHtml({ folder: hostile, phase, outcome: { state, message: hostile } });
    assert.doesNotMatch(html, /<img|="alert/);
    assert.match(html, new RegExp(`class="state ${state}"`));
    assert.doesNotMatch(html, /left/, "nothing is left of what has ended");
  }
});
