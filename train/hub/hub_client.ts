/**
 * Requests to the hub, and what its refusals mean.
 * @module
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { showFound } from "../errors.ts";
import { HubError, TransientHubError } from "./hub_error.ts";
import { COMMIT_HASH, type HubName } from "./hub_name.ts";
import { EXTRA_HOSTS_VARIABLE } from "./hub_settings.ts";
import { type HubEntry, parseEntry } from "./model_listing.ts";
import { DEFAULT_RETRY, retrying, type RetryPolicy } from "./retry.ts";

/** A question that is not answered in this time is asked again. */
const ANSWER_MS = 30_000;

/** The hub, for one repository. */
export interface HubClient {
  /** The commit that the revision is now. */
  commit(): Promise<string>;
  /** Everything that the repository holds at a commit. */
  list(commit: string): Promise<HubEntry[]>;
  /** A file's bytes from an offset on: 206, or 200 where the server sends all of it. One attempt. */
  open(path: string, options: { commit: string; offset: number; signal?: AbortSignal }): Promise<Response>;
}

/** What a client needs to know. */
export interface HubClientOptions {
  readonly name: HubName;
  readonly endpoint: string;
  readonly token?: string;
  readonly retry?: RetryPolicy;
}

/**
 * A client for one repository.
 *
 * @param options the repository, the hub, the user's token
 */
export function createHubClient(options: HubClientOptions): HubClient {
  const { name: { repo, revision }, endpoint } = options;
  const policy = options.retry ?? DEFAULT_RETRY;
  const customFetch = (input: RequestInfo | URL, init?: RequestInit) =>
    request(String(input), { options, init: { ...init, signal: AbortSignal.timeout(ANSWER_MS) } });
  const common = { hubUrl: endpoint, fetch: customFetch as typeof fetch };
  return {
    commit: () =>
      retrying(() =>
        translated(repo, async () => {
          const { sha } = await modelInfo({ ...common, name: repo, revision, additionalFields: ["sha"] });
          // It becomes a folder's name.
          if (typeof sha === "string" && COMMIT_HASH.test(sha)) return sha;
          throw new HubError(
            `Cannot download ${repo}: expected a commit's hash of the hub, found ${showFound(sha)}`,
          );
        }), { policy }),
    list: (commit) =>
      retrying(() =>
        translated(repo, async () => {
          const entries: HubEntry[] = [];
          const listing = listFiles({
            ...common,
            repo: { type: "model", name: repo },
            revision: commit,
            recursive: true,
          });
          for await (const entry of listing) entries.push(parseEntry(entry, repo));
          return entries;
        }), { policy }),
    open: (path, { commit, offset, signal }) => {
      const url = `${endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(path)}`;
      // Compressed, sizes and ranges would mean something else.
      const headers = { "accept-encoding": "identity", ...(offset > 0 ? { range: `bytes=${offset}-` } : {}) };
      return request(url, { options, init: { headers, signal } });
    },
  };
}

/** One request; the token goes to the hub alone, which the library would send wherever a next page lies. */
async function request(
  url: string,
  { options, init = {} }: { options: HubClientOptions; init?: RequestInit },
): Promise<Response> {
  const { endpoint, token, name: { repo } } = options;
  const headers = new Headers(init.headers);
  if (token && new URL(url).origin === new URL(endpoint).origin) {
    headers.set("authorization", `Bearer ${token}`);
  }
  let response: Response;
  try {
    response = await fetch(url, { ...init, headers });
  } catch (cause) {
    throw connectionError(cause, { repo, endpoint });
  }
  // A range past the end is the caller's to mend.
  if (response.ok || response.status === 416) return response;
  await response.body?.cancel();
  throw statusError(response, options);
}

/** What reading a body throws becomes a fault of the line; the rest is passed on. */
async function translated<Result>(repo: string, body: () => Promise<Result>): Promise<Result> {
  try {
    return await body();
  } catch (cause) {
    if (cause instanceof HubError) throw cause;
    const detail = (cause as Error).message;
    if (cause instanceof SyntaxError) {
      throw new HubError(
        `Cannot download ${repo}: expected JSON of the hub, found something else (${detail})`,
        {
          cause,
        },
      );
    }
    throw new TransientHubError(`Cannot download ${repo}: expected an answer of the hub, found ${detail}`, {
      cause,
    });
  }
}

function connectionError(cause: unknown, { repo, endpoint }: { repo: string; endpoint: string }): HubError {
  if (cause instanceof Deno.errors.NotCapable) {
    const host = /net access to "([^"]+)"/.exec(cause.message)?.[1] ?? "another host";
    return new HubError(
      `Cannot download ${repo}: expected ${endpoint} to serve its files, found that they lie on ${host}; ` +
        `if you trust that host, set ${EXTRA_HOSTS_VARIABLE}=${host}`,
      { cause },
    );
  }
  const texts = [cause, (cause as Error).cause].map((error) => (error instanceof Error ? error.message : ""));
  const detail = (texts[1] || texts[0]).replace(/^.*client error \(\w+\): /s, "");
  return new TransientHubError(
    `Cannot download ${repo}: expected ${endpoint} to answer, found no connection (${detail}); ` +
      "with a model that the cache already holds, HF_HUB_OFFLINE=1 needs none",
    { cause },
  );
}

function statusError(response: Response, options: HubClientOptions): HubError {
  const { name: { repo }, endpoint, token } = options;
  const { status } = response;
  if (status === 401 || status === 403) return accessError(response, options);
  if (status === 404) return missingError(response, options);
  const start = `Cannot download ${repo}: expected`;
  if (status === 429) {
    const message = `${start} fewer requests from here, as ${endpoint} says (HTTP 429); run again later`;
    return new TransientHubError(token ? message : `${message}, or set HF_TOKEN`, {
      retryAfterMs: retryAfterMs(response),
    });
  }
  const message = `${start} ${endpoint} to answer, found HTTP ${status}; run again later`;
  return status >= 500
    ? new TransientHubError(message, { retryAfterMs: retryAfterMs(response) })
    : new HubError(message);
}

function accessError(response: Response, { name: { repo }, endpoint, token }: HubClientOptions): HubError {
  const page = `${endpoint}/${repo}`;
  const kind = response.headers.get("x-error-code") === "GatedRepo" ? "gated" : "private or missing";
  const advice = token
    ? `request access at ${page} with the account that HF_TOKEN belongs to, or correct the name`
    : `set HF_TOKEN to the token of an account that may read ${page}, or correct the name`;
  return new HubError(
    `Cannot download ${repo}: expected a repository that this account may read, found a ${kind} one ` +
      `(HTTP ${response.status}); ${advice}`,
  );
}

function missingError(response: Response, { name, endpoint }: HubClientOptions): HubError {
  const { repo, revision } = name;
  const start = `Cannot download ${repo}: expected`;
  switch (response.headers.get("x-error-code")) {
    case "EntryNotFound":
      return new HubError(`${start} ${new URL(response.url).pathname}, found no such file`);
    case "RevisionNotFound":
      return new HubError(
        `${start} a branch, tag or commit ${revision} at ${endpoint}/${repo}, found none (HTTP 404)`,
      );
    default:
      return new HubError(
        `${start} a repository at ${endpoint}/${repo} or a folder ${repo} here, found neither (HTTP 404)`,
      );
  }
}

function retryAfterMs(response: Response): number | undefined {
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}
