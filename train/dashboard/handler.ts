/**
 * What the dashboard's server answers, and to whom.
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { DASHBOARD_PAGE, DASHBOARD_POLICY } from "./page.ts";

const HEADERS = {
  "content-security-policy": DASHBOARD_POLICY,
  // An event must not wait for a compressor to have enough of them.
  "cache-control": "no-store, no-transform",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
};

/** Names of this machine. A page of another name that resolves to it (DNS rebinding) sends that name; tunnels change the port. */
const OWN_HOST = /^(?:127\.0\.0\.1|localhost)(?::\d+)?$/i;

/**
 * Makes the handler: the page at `/<token>/`, its events at `/<token>/events`, and nothing else.
 *
 * @param options.token whoever knows it may look
 * @param options.subscribe makes a listener's stream of events
 * @returns a response for each request: 403 to another host's name, 404 to another token or path, 405 to what is no GET
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const handler = dashboardHandler({ token: "secret", subscribe: () => new ReadableStream() });
 * const get = (path: string, host = "127.0.0.1:8000") =>
 *   handler(new Request(`http://127.0.0.1:8000${path}`, { headers: { host } })).status;
 * assert.deepEqual([get("/secret/"), get("/guess/"), get("/secret/", "example.org")], [200, 404, 403]);
 * ```
 */
export function dashboardHandler(
  { token, subscribe }: { token: string; subscribe: () => ReadableStream<Uint8Array<ArrayBuffer>> },
): (request: Request) => Response {
  const expected = digestOf(token);
  return (request) => {
    if (!OWN_HOST.test(request.headers.get("host") ?? "")) return answer(403, "Another host's name");
    const [, given, page, ...rest] = new URL(request.url).pathname.split("/");
    // Of digests: they are of one length, whatever was given, and comparing them takes one time.
    const isKnown = timingSafeEqual(digestOf(given), expected);
    if (!isKnown || rest.length > 0 || (page !== "" && page !== "events")) return answer(404, "Not found");
    if (request.method !== "GET") return answer(405, "Not allowed", { allow: "GET" });
    return page === ""
      ? answer(200, DASHBOARD_PAGE, { "content-type": "text/html; charset=utf-8" })
      : answer(200, subscribe(), { "content-type": "text/event-stream" });
  };
}

function answer(status: number, body: BodyInit, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(body, { status, headers: { "content-type": "text/plain", ...HEADERS, ...headers } });
}

function digestOf(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}
