/**
 * The dashboard's thread: its server, and the drawing of the figures, which must not keep the run waiting.
 * @module
 */
/// <reference lib="deno.worker" />
import { dashboardHandler } from "./handler.ts";
import { createLiveRun } from "./live_run.ts";
import type { FromDashboard, ToDashboard } from "./messages.ts";

/** This machine alone: nothing outside it can connect. */
const HOSTNAME = "127.0.0.1";

const run = createLiveRun();
let server: Deno.HttpServer<Deno.NetAddr> | undefined;

self.onmessage = async ({ data: message }: MessageEvent<ToDashboard>) => {
  if (message.kind === "serve") serve(message);
  else if (message.kind === "show") run.show(message.folder);
  else if (message.kind === "logged") run.logged();
  else if (message.kind === "phase") run.phase(message.phase);
  else {
    await run.end(message.outcome);
    await server?.shutdown();
    say({ kind: "closed" });
  }
};

function serve({ port, token }: { port: number; token: string }): void {
  const handler = dashboardHandler({ token, subscribe: run.subscribe });
  try {
    server = Deno.serve({ hostname: HOSTNAME, port, onListen() {} }, handler);
    say({ kind: "ready", port: server.addr.port });
  } catch (error) {
    const { name, message } = error as Error;
    say({ kind: "refused", error: name, message });
  }
}

function say(message: FromDashboard): void {
  self.postMessage(message);
}
