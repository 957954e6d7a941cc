/**
 * Which checkpoints of a run are kept, and how the others go.
 * @module
 */
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { type FileSystem, syncFolder } from "../file_system.ts";
import { namingFile } from "../models/safetensors_write.ts";
import { readManifest, verifyFiles } from "./files.ts";
import { cannotRead, listCheckpoints, stepName } from "./folders.ts";
import type { Manifest } from "./manifest.ts";

/** Files and folders of a run under their temporary names, see `stageFile` and `writeFolderAtomically`. */
const PARTIAL_NAME = /^.+\.\d+\.partial$/;

/**
 * Removes what runs that died have left: checkpoints that were being written or removed, and files of the run and its
 * model that have no final name yet. For the start of a run that goes on.
 *
 * @param runFolder the run's folder; no other run may be writing to it
 * @param options.fileSystem Deno by default
 * @throws {CheckpointError} naming what cannot be removed
 */
export async function removeLeftovers(
  runFolder: string,
  { fileSystem = Deno }: { fileSystem?: FileSystem } = {},
): Promise<void> {
  await removeUnfinished(runFolder, fileSystem);
  for (const folder of [runFolder, join(runFolder, "model")]) {
    const stat = await fileSystem.lstat(folder).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw cannotRead(folder, error);
    });
    if (!stat?.isDirectory) continue;
    for await (const { name, isSymlink } of fileSystem.readDir(folder)) {
      const path = join(folder, name);
      if (isSymlink || !PARTIAL_NAME.test(name)) continue;
      await namingFile(path, () => fileSystem.remove(path, { recursive: true }));
    }
  }
}

/**
 * Removes checkpoints that were being written or removed when a run died.
 *
 * @param runFolder the run's folder; no other run may be writing to it
 * @param fileSystem Deno by default
 * @throws {CheckpointError} naming what cannot be removed
 */
export async function removeUnfinished(runFolder: string, fileSystem: FileSystem = Deno): Promise<void> {
  const { root, steps, litter } = await listCheckpoints(runFolder, fileSystem);
  // One that was about to be replaced has had its use when the new one is there.
  const replaced = steps.filter(({ step, name }) =>
    name.startsWith(".") && steps.some((other) => other.name === stepName(step))
  );
  for (const name of [...litter, ...replaced.map((one) => one.name)]) {
    const path = join(root, name);
    await namingFile(path, () => fileSystem.remove(path, { recursive: true }));
  }
}

/**
 * Removes old checkpoints once a new one is in place: the last ones and the best one stay. One whose names or sizes are
 * not as its manifest says counts for nothing and goes. Later ones than the new one, which the run has passed over, go if
 * they are damaged; they count for nothing either.
 *
 * @param runFolder the run's folder
 * @param options.step of the new one, which stays in any case
 * @param options.keep how many of the last ones stay, at least 1
 * @param options.fileSystem Deno by default
 * @throws {CheckpointError} naming what cannot be removed
 */
export async function pruneCheckpoints(
  runFolder: string,
  options: { step: number; keep: number; fileSystem?: FileSystem },
): Promise<void> {
  const { step, keep, fileSystem = Deno } = options;
  const { root, steps } = await listCheckpoints(runFolder, fileSystem);
  const whole: { name: string; manifest: Manifest }[] = [];
  const removed: string[] = [];
  for (const { step: other, name } of steps) {
    const manifest = await manifestOf(join(root, name), { step: other, isVerified: other > step });
    if (!manifest && other !== step) removed.push(name);
    else if (manifest && other <= step) whole.push({ name, manifest });
  }
  const best = bestOf(whole);
  removed.push(...whole.slice(keep).filter((one) => one !== best).map(({ name }) => name));
  for (const name of removed) await removeWhole(root, name, fileSystem);
}

/** Of a checkpoint that is not damaged, as far as is looked: contents only where `isVerified`. */
async function manifestOf(
  folder: string,
  { step, isVerified }: { step: number; isVerified: boolean },
): Promise<Manifest | undefined> {
  try {
    const manifest = await readManifest(folder, step);
    if (isVerified) await verifyFiles(folder, manifest.files);
    return manifest;
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

/** Of equal scores the newest; none where no checkpoint has one. */
function bestOf<One extends { manifest: Manifest }>(newestFirst: readonly One[]): One | undefined {
  let best: One | undefined;
  for (const one of newestFirst) {
    const score = one.manifest.score;
    if (score !== undefined && score > (best?.manifest.score ?? -Infinity)) best = one;
  }
  return best;
}

/** Under another name first: a checkpoint that is there is whole. */
async function removeWhole(root: string, name: string, fileSystem: FileSystem): Promise<void> {
  const path = join(root, name);
  const hidden = join(root, `.${name.replace(/^\./, "").replace(".replaced", "")}.${Deno.pid}.removed`);
  await namingFile(path, async () => {
    await fileSystem.rename(path, hidden);
    await syncFolder(root, fileSystem);
    await fileSystem.remove(hidden, { recursive: true });
  });
}
