/**
 * Names of models on a hub: `owner/name`, or `owner/name@revision`.
 * @module
 */
import { existsSync } from "node:fs";
import { HubError } from "./hub_error.ts";

/** A model on the hub at one revision. */
export interface HubName {
  /** `owner/name`. */
  readonly repo: string;
  /** A branch, a tag or a commit's hash; `main` where none is named. */
  readonly revision: string;
}

/** What the hub accepts: letters, digits, `-`, `_` and `.`, neither first nor last a `-` or `.`. */
const SEGMENT = /^(?=.{1,96}$)[A-Za-z0-9_](?:[\w.-]*\w)?$/;
const DEFAULT_REVISION = "main";

/** Whether a revision is a commit's full hash, which never moves. */
export const COMMIT_HASH = /^[0-9a-f]{40}$/;

/**
 * Whether `--model` names a model on the hub. A file or folder of that name wins, and what starts like a path
 * (`./x`, `/x`) is one.
 *
 * @param model as the user wrote it
 * @returns whether {@link parseHubName} takes it and nothing of that name lies here
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert(isHubName("HuggingFaceTB/SmolLM2-135M@main"));
 * assert(!isHubName("./HuggingFaceTB/SmolLM2-135M") && !isHubName("SmolLM2-135M"));
 * ```
 */
export function isHubName(model: string): boolean {
  return splitName(model) !== undefined && !existsSync(model);
}

/**
 * Reads the name of a model on the hub.
 *
 * @param name `owner/name` or `owner/name@revision`
 * @returns its parts; the revision is `main` where none is named
 * @throws {HubError} when it is not such a name
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseHubName("a/b@refs/pr/1"), { repo: "a/b", revision: "refs/pr/1" });
 * ```
 */
export function parseHubName(name: string): HubName {
  const parsed = splitName(name);
  if (parsed) return parsed;
  throw new HubError(`Cannot download ${name}: expected owner/name or owner/name@revision`);
}

function splitName(name: string): HubName | undefined {
  const at = name.indexOf("@");
  const repo = at < 0 ? name : name.slice(0, at);
  const revision = at < 0 ? DEFAULT_REVISION : name.slice(at + 1);
  const segments = repo.split("/");
  const isRepo = segments.length === 2 && segments.every(isSegment);
  // Revisions become file names under refs/.
  const isRevision = revision.split("/").every((part) => /^\w[\w.+-]*$/.test(part) && !part.endsWith("."));
  return isRepo && isRevision && !revision.includes("..") ? { repo, revision } : undefined;
}

/** `--` stands for the slash in the cache's folder names. */
function isSegment(segment: string): boolean {
  return SEGMENT.test(segment) && !segment.includes("--") && !segment.includes("..");
}
