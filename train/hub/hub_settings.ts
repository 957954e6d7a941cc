/**
 * Where the hub and its cache are, from the environment variables that Hugging Face's own tools read.
 * @module
 */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { HubError } from "./hub_error.ts";

/** The hub that is asked where HF_ENDPOINT names no other. */
const DEFAULT_ENDPOINT = "https://huggingface.co";
/**
 * Where that hub sends those who fetch files: `us.aws.cdn.hf.co`, `cas-bridge.xethub.hf.co`, `cdn-lfs.huggingface.co`
 * and others, which change by region and over time; its documentation gives these two patterns for firewalls.
 */
const DEFAULT_DOWNLOAD_HOSTS = ["*.hf.co:443", "*.huggingface.co:443"];
/** More hosts that downloads may come from, with commas between: what a hub of one's own redirects to. */
export const EXTRA_HOSTS_VARIABLE = "KEEL_HUB_HOSTS";

/** What of the hub is on this machine. */
export interface HubCache {
  /** Where models are kept (HF_HUB_CACHE, else `hub` in HF_HOME). */
  readonly cacheFolder: string;
  /** No network (HF_HUB_OFFLINE). */
  readonly isOffline: boolean;
}

/** Variables that {@link hubCache} reads. */
export const HUB_CACHE_VARIABLES = [
  "HF_HOME",
  "XDG_CACHE_HOME",
  "HF_HUB_CACHE",
  "HUGGINGFACE_HUB_CACHE",
  "HF_HUB_OFFLINE",
  "TRANSFORMERS_OFFLINE",
] as const;

/** Variables that {@link hubSettings} reads. */
export const HUB_VARIABLES = [
  ...HUB_CACHE_VARIABLES,
  "HF_ENDPOINT",
  "HF_TOKEN",
  "HUGGING_FACE_HUB_TOKEN",
  "HF_TOKEN_PATH",
  EXTRA_HOSTS_VARIABLE,
] as const;

/** How this machine reaches the hub. */
export interface HubSettings extends HubCache {
  /** The hub's address, without a slash at the end (HF_ENDPOINT). */
  readonly endpoint: string;
  /** `host:port` of all that a download may connect to. */
  readonly hosts: readonly string[];
  /** Of the user's account (HF_TOKEN, else the file that `hf auth login` writes). */
  readonly token?: string;
}

/** Gives a variable of the environment. */
type GetVariable = (name: string) => string | undefined;

/**
 * Reads of the environment what tells where models are kept; who looks no further sees no token.
 *
 * @param get gives a variable's value; the process's environment where left out
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(hubCache((name) => name === "HF_HUB_CACHE" ? "/hub" : undefined), {
 *   cacheFolder: "/hub",
 *   isOffline: false,
 * });
 * ```
 */
export function hubCache(get: GetVariable = (name) => Deno.env.get(name)): HubCache {
  const value = trimmed(get);
  const cache = value("HF_HUB_CACHE") ?? value("HUGGINGFACE_HUB_CACHE") ?? join(hubHome(value), "hub");
  return {
    cacheFolder: resolve(expandHome(cache)),
    isOffline: /^(1|on|yes|true)$/i.test(value("HF_HUB_OFFLINE") ?? value("TRANSFORMERS_OFFLINE") ?? ""),
  };
}

function trimmed(get: GetVariable): GetVariable {
  return (name) => get(name)?.trim() || undefined;
}

function hubHome(value: GetVariable): string {
  return value("HF_HOME") ?? join(value("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
}

/**
 * Reads the environment.
 *
 * @param get gives a variable's value; the process's environment where left out
 * @returns the settings
 * @throws {HubError} when HF_ENDPOINT is not an http or https address, or KEEL_HUB_HOSTS not a list of hosts
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { endpoint, cacheFolder, isOffline } = hubSettings((name) => name === "HF_HOME" ? "/data/hf" : undefined);
 * assert.equal(endpoint, "https://huggingface.co");
 * assert(cacheFolder.endsWith("hub") && !isOffline);
 * ```
 */
export function hubSettings(get: GetVariable = (name) => Deno.env.get(name)): HubSettings {
  const value = trimmed(get);
  const endpoint = parseEndpoint(value("HF_ENDPOINT") ?? DEFAULT_ENDPOINT);
  return {
    ...hubCache(get),
    endpoint: endpoint.href.replace(/\/+$/, ""),
    hosts: [
      hostOf(endpoint),
      ...(endpoint.origin === DEFAULT_ENDPOINT ? DEFAULT_DOWNLOAD_HOSTS : []),
      ...parseHosts(value(EXTRA_HOSTS_VARIABLE)),
    ],
    token: value("HF_TOKEN") ?? value("HUGGING_FACE_HUB_TOKEN") ??
      readToken(expandHome(value("HF_TOKEN_PATH") ?? join(hubHome(value), "token"))),
  };
}

function parseEndpoint(text: string): URL {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol)) return url;
  throw new HubError(`Cannot use HF_ENDPOINT: expected an http or https address, found ${text}`);
}

function hostOf(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === "https:" ? 443 : 80)}`;
}

function parseHosts(text: string | undefined): string[] {
  const hosts = (text ?? "").split(",").map((host) => host.trim()).filter((host) => host !== "");
  for (const host of hosts) {
    if (!/^(\*\.)?[\w.-]+(:\d+)?$/.test(host)) {
      throw new HubError(`Cannot use ${EXTRA_HOSTS_VARIABLE}: expected host or host:port, found ${host}`);
    }
  }
  return hosts;
}

function expandHome(path: string): string {
  return /^~(?=$|[/\\])/.test(path) ? join(homedir(), path.slice(1)) : path;
}

function readToken(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim() || undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new HubError(`Cannot read ${path}: expected a token, found ${(error as Error).message}`, {
      cause: error,
    });
  }
}
