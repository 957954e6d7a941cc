/**
 * The dashboard's page: a frame that its script fills. It loads nothing and asks no one but its own server.
 * @module
 */
import { createHash } from "node:crypto";
import { REPORT_STYLE } from "../report/style.ts";

const STYLE = `${REPORT_STYLE}
.state { font-size: 1.1rem; font-weight: 600; margin: 0.5rem 0 0; }
.phase { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin: 0.5rem 0; padding: 0; list-style: none;
  font-variant-numeric: tabular-nums; }
progress { width: 100%; accent-color: var(--text); }
#connection:empty { display: none; }
#connection { position: sticky; top: 0; margin: 0; padding: 0.5rem; max-width: none;
  background: var(--raised); border: 1px solid var(--line); }
`;

/** Puts parts of the page in their places as they come. What it sets is escaped by who sends it. */
const SCRIPT = `"use strict";
const main = document.querySelector("main");
const connection = document.getElementById("connection");
const source = new EventSource("events");
source.onopen = () => { connection.textContent = ""; };
source.onerror = () => {
  connection.textContent = source.readyState === EventSource.CLOSED
    ? "This run's page has gone: what is shown is the last of it."
    : "No connection to the run: what is shown may be old. Trying again.";
};
source.addEventListener("update", ({ data }) => {
  const { title, order, html } = JSON.parse(data);
  document.title = title;
  for (const part of [...main.children]) if (!order.includes(part.id)) part.remove();
  for (const [place, id] of order.entries()) {
    let part = document.getElementById(id);
    if (!part) {
      part = document.createElement("div");
      part.id = id;
    }
    if (main.children[place] !== part) main.insertBefore(part, main.children[place] ?? null);
    if (Object.hasOwn(html, id)) part.innerHTML = html[id];
  }
});
source.addEventListener("end", () => { source.close(); });
`;

/** The page; all that is in it comes with the first events. */
export const DASHBOARD_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keel</title>
<style>${STYLE}</style>
</head>
<body>
<p id="connection" role="status"></p>
<main><noscript>This page needs its script; deno task report makes one that needs none.</noscript></main>
<script>${SCRIPT}</script>
</body>
</html>
`;

/** What the page may do: its own style sheet and script, and events from where it came from. */
export const DASHBOARD_POLICY = [
  "default-src 'none'",
  `style-src '${hashOf(STYLE)}'`,
  `script-src '${hashOf(SCRIPT)}'`,
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

function hashOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}
