import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { dashboardHandler } from "../../train/dashboard/handler.ts";
import { DASHBOARD_PAGE, DASHBOARD_POLICY } from "../../train/dashboard/page.ts";

const TOKEN = "0123456789abcdef";

function ask(path: string, { host = "127.0.0.1:8000", method = "GET" } = {}) {
  let subscriptions = 0;
  const subscribe = () => {
    subscriptions++;
    return new ReadableStream<Uint8Array<ArrayBuffer>>();
  };
  const handler = dashboardHandler({ token: TOKEN, subscribe });
  const response = handler(new Request(`http://127.0.0.1:8000${path}`, { headers: { host }, method }));
  return { response, subscriptions };
}

Deno.test("whoever knows the token gets the page and its events", async () => {
  const page = ask(`/${TOKEN}/`).response;
  assert.equal(page.headers.get("content-type"), "text/html; charset=utf-8");
  assert.equal(await page.text(), DASHBOARD_PAGE);
  const { response, subscriptions } = ask(`/${TOKEN}/events`);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.equal(subscriptions, 1);
});

Deno.test("another token, part of it or none, and every other path are not found", () => {
  const paths = [
    ...["/", "/events", "//", "//events", `/${TOKEN}`, `/${TOKEN}/other`, `/${TOKEN}/events/`, `/${TOKEN}//`],
    ...[`/${TOKEN.slice(1)}/`, `/${TOKEN}0/events`, `/${TOKEN.toUpperCase()}/`, `/?${TOKEN}`, "/%30/events"],
    `/${"f".repeat(TOKEN.length)}/events`,
  ];
  for (const path of paths) {
    const { response, subscriptions } = ask(path);
    assert.equal(response.status, 404, path);
    assert.equal(subscriptions, 0, path);
  }
});

Deno.test("a name that is not this machine's is refused, with the right token too", () => {
  const foreign = [
    "example.org",
    "127.0.0.1.example.org",
    "localhost.example.org:8000",
    "127.0.0.10",
    "[::1]:8",
  ];
  for (const host of foreign) assert.equal(ask(`/${TOKEN}/events`, { host }).response.status, 403, host);
  for (const host of ["127.0.0.1", "localhost:9999", "LOCALHOST"]) {
    assert.equal(ask(`/${TOKEN}/`, { host }).response.status, 200, host);
  }
  const handler = dashboardHandler({ token: TOKEN, subscribe: () => new ReadableStream() });
  assert.equal(handler(new Request(`http://127.0.0.1/${TOKEN}/`)).status, 403, "no name at all");
});

Deno.test("nothing but GET is answered", () => {
  for (const method of ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"]) {
    assert.equal(ask(`/${TOKEN}/events`, { method }).response.status, 405, method);
    assert.equal(ask("/guess/events", { method }).response.status, 404, method);
  }
});

Deno.test("every answer forbids storing, referring, framing and whatever the page does not need", () => {
  for (
    const { response } of [ask(`/${TOKEN}/`), ask(`/${TOKEN}/events`), ask("/"), ask("/", { host: "a" })]
  ) {
    assert.match(response.headers.get("cache-control")!, /no-store/);
    assert.equal(response.headers.get("referrer-policy"), "no-referrer");
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    assert.equal(response.headers.get("content-security-policy"), DASHBOARD_POLICY);
    assert.equal(response.headers.get("access-control-allow-origin"), null);
  }
  const rules = DASHBOARD_POLICY.split("; ");
  assert.ok(rules.includes("default-src 'none'") && rules.includes("frame-ancestors 'none'"));
  assert.doesNotMatch(DASHBOARD_POLICY, /unsafe|\*|http/);
  for (const tag of ["style", "script"]) {
    const [, text] = new RegExp(`<${tag}>([^]*)</${tag}>`).exec(DASHBOARD_PAGE)!;
    const hash = createHash("sha256").update(text).digest("base64");
    assert.ok(rules.includes(`${tag}-src 'sha256-${hash}'`), tag);
  }
  assert.doesNotMatch(DASHBOARD_PAGE, /https?:|src=|href=/);
});
