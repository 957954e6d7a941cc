/**
 * A model hub on this machine, as far as downloads use it: revisions, listings in pages, files with ranges, big ones on
 * another origin. It can be told to misbehave.
 *
 * @module
 */
import { createHash } from "node:crypto";

export const REPO = "tester/tiny";
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** What goes wrong with one answer. */
export type Fault =
  | { readonly kind: "drop"; readonly afterBytes: number }
  | { readonly kind: "status"; readonly status: number; readonly headers?: Record<string, string> }
  /** Sends these bytes instead, whatever was asked for. */
  | { readonly kind: "replace"; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly kind: "ignore-range" }
  /** Sends these bytes instead, in good form, without saying how many they are. */
  | { readonly kind: "unsized"; readonly bytes: Uint8Array<ArrayBuffer> }
  /** Says that the whole has this size, in an answer that is the rest. */
  | { readonly kind: "total"; readonly size: number }
  | { readonly kind: "stall" };

export interface RequestRecord {
  readonly origin: "hub" | "cdn";
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

export interface HubServer extends AsyncDisposable {
  readonly endpoint: string;
  readonly cdn: string;
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
  /** By path in the repository, or `revision` or `tree`; each is used once, in order. */
  readonly faults: Map<string, Fault[]>;
  readonly requests: RequestRecord[];
  /** Requests for bytes of a file, at the origin that has it. */
  requestsFor(path: string): RequestRecord[];
}

export interface HubServerOptions {
  readonly files: Record<string, Uint8Array<ArrayBuffer> | string>;
  /** Only this token may read. */
  readonly token?: string;
  readonly entriesPerPage?: number;
  /** Host of the second origin as redirects name it. */
  readonly cdnHost?: string;
  /** Whether the listing's pages after the first lie on the second origin. */
  readonly pagesOnCdn?: boolean;
  /** Changes the listing. */
  readonly editEntry?: (entry: Record<string, unknown>) => Record<string, unknown>;
  /** What the hub says the commit is. */
  readonly commit?: string;
  /** Pause after each part of a big file. */
  readonly partDelayMs?: number;
}

/** Big files are those that git keeps elsewhere. */
const isBig = (path: string) => path.endsWith(".safetensors") || path === "tokenizer.json";
const PART_BYTES = 16 * 1024;

export function startHubServer(options: HubServerOptions): HubServer {
  const files = new Map(
    Object.entries(options.files).map(([path, content]) => [
      path,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    ]),
  );
  const faults = new Map<string, Fault[]>();
  const requests: RequestRecord[] = [];
  const context: Context = { options, files, faults, requests, cdn: "" };
  const serve = (origin: "hub" | "cdn") =>
    Deno.serve({
      hostname: "127.0.0.1",
      port: 0,
      onListen: () => {},
      onError: () => new Response(null, { status: 500 }),
    }, (request) => {
      const { pathname } = new URL(request.url);
      const { headers } = request;
      requests.push({
        origin,
        path: decodeURIComponent(pathname),
        range: headers.get("range"),
        authorization: headers.get("authorization"),
      });
      return origin === "hub" ? answerHub(request, context) : answerCdn(request, context);
    });
  const [hub, cdn] = [serve("hub"), serve("cdn")];
  context.cdn = `http://${options.cdnHost ?? "127.0.0.1"}:${cdn.addr.port}`;
  return {
    endpoint: `http://127.0.0.1:${hub.addr.port}`,
    cdn: context.cdn,
    files,
    faults,
    requests,
    requestsFor: (path) =>
      requests.filter((one) => one.origin === (isBig(path) ? "cdn" : "hub") && one.path.endsWith(`/${path}`)),
    async [Symbol.asyncDispose]() {
      await Promise.all([hub.shutdown(), cdn.shutdown()]);
    },
  };
}

interface Context {
  readonly options: HubServerOptions;
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
  readonly faults: Map<string, Fault[]>;
  readonly requests: RequestRecord[];
  cdn: string;
}

function answerHub(request: Request, context: Context): Response {
  const { options, faults } = context;
  const url = new URL(request.url);
  const path = decodeURIComponent(url.pathname);
  const refuse = (status: number, code: string) =>
    Response.json({ error: code }, { status, headers: { "x-error-code": code } });
  const isAllowed = options.token === undefined ||
    request.headers.get("authorization") === `Bearer ${options.token}`;
  if (!isAllowed) return refuse(401, "GatedRepo");
  const commit = options.commit ?? COMMIT;
  const info = `/api/models/${REPO}/revision/`;
  const tree = `/api/models/${REPO}/tree/`;
  if (path.startsWith(info)) {
    const failed = statusFault(faults, "revision");
    if (failed) return failed;
    if (!["main", "refs/pr/1", commit].includes(path.slice(info.length))) {
      return refuse(404, "RevisionNotFound");
    }
    return Response.json({ _id: "1", id: REPO, sha: commit, lastModified: "2026-01-01T00:00:00.000Z" });
  }
  if (path.startsWith(tree)) return statusFault(faults, "tree") ?? listing(url, context);
  const file = path.slice(`/${REPO}/resolve/${commit}/`.length);
  if (!path.startsWith(`/${REPO}/resolve/${commit}/`)) return refuse(404, "RepoNotFound");
  const content = context.files.get(file);
  if (!content) return refuse(404, "EntryNotFound");
  const headers = { "x-repo-commit": commit };
  if (!isBig(file)) {
    return statusFault(faults, file) ??
      send(request, { file, context, headers: { ...headers, etag: `"${gitHash(content)}"` } });
  }
  const linked = { "x-linked-size": String(content.byteLength), "x-linked-etag": `"${sha256(content)}"` };
  return new Response(null, {
    status: 302,
    headers: { ...headers, ...linked, location: `${context.cdn}/blob/${file}` },
  });
}

function answerCdn(request: Request, context: Context): Response {
  const url = new URL(request.url);
  if (url.pathname.startsWith("/api/")) return listing(url, context);
  const file = decodeURIComponent(url.pathname).slice("/blob/".length);
  return statusFault(context.faults, file) ?? send(request, { file, context, headers: {} });
}

function listing(url: URL, { options, files, cdn }: Context): Response {
  const entries = [...files].map(([path, content]) => entryOf(path, content)).map(
    options.editEntry ?? ((entry) => entry),
  );
  const size = options.entriesPerPage ?? 1000;
  const start = Number(url.searchParams.get("cursor") ?? 0);
  const next = new URL(options.pagesOnCdn ? `${url.pathname}${url.search}` : url, cdn);
  next.searchParams.set("cursor", String(start + size));
  const headers: HeadersInit = start + size < entries.length ? { link: `<${next}>; rel="next"` } : {};
  return Response.json(entries.slice(start, start + size), { headers });
}

function entryOf(path: string, content: Uint8Array): Record<string, unknown> {
  const entry = { type: "file", path, size: content.byteLength, oid: gitHash(content) };
  if (!isBig(path)) return entry;
  return {
    ...entry,
    lfs: { oid: sha256(content), size: content.byteLength, pointerSize: 134 },
    xetHash: sha256(content),
  };
}

/** A file or the rest of it, and what goes wrong with that. */
function send(
  request: Request,
  { file, context, headers }: { file: string; context: Context; headers: Record<string, string> },
): Response {
  const fault = context.faults.get(file)?.shift();
  const content = context.files.get(file)!;
  if (fault?.kind === "unsized") return new Response(partsOf(fault.bytes), { headers });
  if (fault?.kind === "replace") return new Response(fault.bytes, { headers });
  const range = fault?.kind === "ignore-range"
    ? null
    : /^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "");
  const start = range ? Number(range[1]) : 0;
  if (start >= content.byteLength && start > 0) return new Response(null, { status: 416, headers });
  const bytes = content.subarray(start);
  const body = fault ? spoiledBody(bytes, fault) : partsOf(bytes, context.options.partDelayMs);
  const length = { ...headers, "content-length": String(bytes.byteLength) };
  if (!range) return new Response(body, { headers: length });
  const last = content.byteLength - 1;
  const total = fault?.kind === "total" ? fault.size : content.byteLength;
  return new Response(body, {
    status: 206,
    headers: { ...length, "content-range": `bytes ${start}-${last}/${total}` },
  });
}

function partsOf(bytes: Uint8Array<ArrayBuffer>, delayMs = 0): ReadableStream<Uint8Array<ArrayBuffer>> {
  let done = 0;
  return new ReadableStream({
    async pull(controller) {
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
      if (done < bytes.byteLength) controller.enqueue(bytes.subarray(done, done += PART_BYTES));
      else controller.close();
    },
  });
}

function spoiledBody(bytes: Uint8Array<ArrayBuffer>, fault: Fault): ReadableStream<Uint8Array<ArrayBuffer>> {
  if (fault.kind === "stall") return new ReadableStream({ start: () => {} });
  if (fault.kind !== "drop") return partsOf(bytes);
  let wasSent = false;
  return new ReadableStream({
    async pull(controller) {
      if (!wasSent) controller.enqueue(bytes.subarray(0, fault.afterBytes));
      else {
        // What was sent shall arrive first.
        await new Promise((resolve) => setTimeout(resolve, 30));
        controller.error(new Error("dropped"));
      }
      wasSent = true;
    },
  });
}

function statusFault(faults: Map<string, Fault[]>, key: string): Response | undefined {
  const [fault] = faults.get(key) ?? [];
  if (fault?.kind !== "status") return undefined;
  faults.get(key)!.shift();
  return new Response("failed", { status: fault.status, headers: fault.headers });
}

export function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

export function gitHash(content: Uint8Array): string {
  return createHash("sha1").update(`blob ${content.byteLength}\0`).update(content).digest("hex");
}
