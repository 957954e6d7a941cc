/**
 * The program that downloads: a process of its own, so that the one that trains never has access to the network. It gets
 * a request as its only argument and the token in HF_TOKEN, and answers with lines of JSON on standard output.
 * @module
 */
import { fetchSnapshot } from "./fetch_snapshot.ts";
import { HubError } from "./hub_error.ts";
import { type DownloadLine, downloadRequestSchema } from "./messages.ts";

/** A line of progress is due no more often than this. */
const PROGRESS_MS = 100;

async function main(argument: string): Promise<number> {
  try {
    const request = downloadRequestSchema.parse(JSON.parse(argument));
    const hooks = { onProgress: throttled(), onWait: (path: string) => emit({ kind: "waiting", path }) };
    const snapshot = await fetchSnapshot(request, { token: Deno.env.get("HF_TOKEN") || undefined, hooks });
    emit({ kind: "done", snapshot });
    return 0;
  } catch (error) {
    emit({ kind: "error", ...describe(error) });
    return 1;
  }
}

function describe(error: unknown): { message: string; isExpected: boolean } {
  if (error instanceof HubError) return { message: error.message, isExpected: true };
  if (error instanceof Deno.errors.PermissionDenied) {
    const message = `Cannot write to the cache: ${error.message}; HF_HUB_CACHE names another folder`;
    return { message, isExpected: true };
  }
  const message = error instanceof Error ? error.stack ?? error.message : String(error);
  return { message, isExpected: false };
}

function throttled(): (doneBytes: number, totalBytes: number) => void {
  let last = -Infinity;
  return (doneBytes, totalBytes) => {
    const now = performance.now();
    if (now - last < PROGRESS_MS && doneBytes < totalBytes) return;
    last = now;
    emit({ kind: "progress", doneBytes, totalBytes });
  };
}

function emit(line: DownloadLine): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let done = 0; done < bytes.byteLength;) done += Deno.stdout.writeSync(bytes.subarray(done));
}

if (import.meta.main) Deno.exitCode = await main(Deno.args[0]);
