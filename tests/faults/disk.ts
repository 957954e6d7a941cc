/**
 * Small disks that fill up or become read-only, where this process may mount one.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";

/** A disk of its own. */
export interface SmallDisk extends Disposable {
  readonly folder: string;
  /** Takes all the room that is left. */
  fill(): void;
  /** Lets nothing be written. */
  makeReadOnly(): void;
}

function command(name: string, ...args: string[]): boolean {
  return new Deno.Command(name, { args, stdout: "null", stderr: "null" }).outputSync().success;
}

/**
 * Mounts a disk in memory.
 *
 * @param sizeKib Its size.
 * @returns The disk, or nothing where this process may not mount one.
 */
export function mountDisk(sizeKib = 512): SmallDisk | undefined {
  if (Deno.build.os !== "linux") return undefined;
  const folder = Deno.makeTempDirSync({ prefix: "keel_disk_" });
  const release = () => Deno.removeSync(folder, { recursive: true });
  if (!command("mount", "-t", "tmpfs", "-o", `size=${sizeKib}k`, "tmpfs", folder)) {
    release();
    return undefined;
  }
  return {
    folder,
    fill() {
      using file = Deno.openSync(join(folder, "filler"), { write: true, create: true });
      const page = new Uint8Array(4096);
      assert.throws(() => {
        for (;;) file.writeSync(page);
      }, /No space left/);
    },
    makeReadOnly: () => assert.ok(command("mount", "-o", "remount,ro", folder)),
    [Symbol.dispose]() {
      assert.ok(command("umount", "-l", folder));
      release();
    },
  };
}

/** Whether {@link mountDisk} can: tests that need it are ignored elsewhere, and reported as such. */
export const CAN_MOUNT = (() => {
  using disk = mountDisk();
  return disk !== undefined;
})();

/** The SHA-256 of every file below a folder but locks and what fills the disk, by path. */
export function contentsBelow(folder: string): Record<string, string> {
  const contents: Record<string, string> = {};
  const visit = (prefix: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(join(folder, prefix))) {
      const path = `${prefix}${name}`;
      if (isDirectory) visit(`${path}/`);
      else if (name !== ".lock" && path !== "filler") {
        contents[path] = createHash("sha256").update(Deno.readFileSync(join(folder, path))).digest("hex");
      }
    }
  };
  visit("");
  return contents;
}
