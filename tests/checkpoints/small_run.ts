/**
 * A small state to save and read, without a model, and file systems that fail on demand.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { fromHost, release, type Tensor, toHost, writeHost } from "../../engine/tensor.ts";
import type { RunState } from "../../train/checkpoints/run_state.ts";
import type { CheckpointContext } from "../../train/checkpoints/write.ts";
import type { FileSystem } from "../../train/file_system.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";

/** A run of two tensors and some numbers, all of which follow from its step. */
export interface SmallRun extends Disposable {
  /** Goes to a step. */
  goTo(step: number): void;
  /** What a checkpoint is made of now. */
  state(): RunState;
  /** All there is, to compare. */
  contents(): Promise<{ tensors: number[][]; numbers: Record<string, number> }>;
}

/**
 * Makes such a run.
 *
 * @param gpu The device.
 * @param size Elements of its first tensor.
 */
export function smallRun(gpu: Gpu, size = 8): SmallRun {
  const shapes: [string, number[]][] = [["model/weight", [size / 4, 4]], ["optimizer/moment", [3]]];
  const tensors = shapes.map(([name, shape]) => {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    return { name, tensor: fromHost(gpu, values, { shape }) };
  });
  let numbers: Record<string, number> = {};
  let current = 0;
  const goTo = (step: number) => {
    current = step;
    tensors.forEach(({ tensor }, index) => writeHost(tensor, valuesAt(tensor, step + index)));
    numbers = { steps: step, seed: 0.1 + 0.2, zero: -0, tiny: 5e-324, "1": 1 };
  };
  goTo(0);
  return {
    goTo,
    state: () => ({
      step: current,
      metricsBytes: current * 10,
      parts: {
        model: { tensors: tensors.slice(0, 1), numbers: () => ({}), restore: () => {} },
        optimizer: {
          tensors: tensors.slice(1),
          numbers: () => numbers,
          restore: (given) => void (numbers = { ...given }),
        },
      },
    }),
    async contents() {
      const values: number[][] = [];
      for (const { tensor } of tensors) values.push([...await toHost(tensor)]);
      return { tensors: values, numbers };
    },
    [Symbol.dispose]: () => tensors.forEach(({ tensor }) => release(tensor)),
  };
}

function valuesAt({ shape }: Tensor, step: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(step * 1000 + i));
}

/**
 * Where the run is saved.
 *
 * @param folder The run's folder.
 * @param change What differs from two kept and no score.
 */
export function contextOf(folder: string, change: Partial<CheckpointContext> = {}): CheckpointContext {
  const fileSystem = change.fileSystem ?? Deno;
  return {
    folder,
    identity: { seed: 0, files: { "pairs.jsonl": "ab" } },
    keep: 2,
    async saveModel(folder) {
      await writeSafetensors(join(folder, "model.safetensors"), [
        { name: "w", shape: [2], data: () => Float32Array.of(1, 2) },
      ], { dtype: "f32", fileSystem });
    },
    ...change,
  };
}

/** Names in the folder of checkpoints. */
export function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(join(folder, "checkpoints"))].map(({ name }) => name).sort();
}

/** Thrown in place of the death of a process. */
export class Killed extends Error {}

/** How an operation fails: as on a full disk, or as when the process dies there. */
export type Fault = "full" | "killed";

/** Deno's file system, counting its operations, one of which fails. */
export interface FaultyFileSystem {
  readonly fileSystem: FileSystem;
  /** Operations that were begun, each with what it was done to. */
  readonly operations: string[];
}

/**
 * Fails one operation: a write writes half before. After a death every operation fails, so nothing is tidied up.
 *
 * @param at Number of the operation that fails, from 0; none when it is never reached.
 * @param fault How it fails.
 */
export function faultyFileSystem(at: number, fault: Fault): FaultyFileSystem {
  const operations: string[] = [];
  const isDue = (operation: string) => {
    const index = operations.push(operation) - 1;
    return fault === "killed" ? index >= at : index === at;
  };
  const fail = () => fault === "killed" ? new Killed() : fullDisk();
  // deno-lint-ignore no-explicit-any -- arguments are passed on as they are
  const wrap = <Function extends (...args: any[]) => any>(name: string, run: Function): Function =>
    ((...args: Parameters<Function>) => {
      if (!isDue(`${name} ${args[0]}`)) return run(...args);
      return Promise.reject(fail());
    }) as Function;
  const wrapFile = (file: Deno.FsFile, path: string): Deno.FsFile =>
    new Proxy(file, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        if (key !== "write" && key !== "sync" && key !== "read") return value.bind(target);
        return async (...args: unknown[]) => {
          // Nothing cuts the power here: that flushing is asked for is all that can be seen of it.
          if (!isDue(`${key} ${path}`)) return key === "sync" ? undefined : value.apply(target, args);
          const [bytes] = args;
          if (key === "write" && bytes instanceof Uint8Array) {
            await target.write(bytes.subarray(0, bytes.length >> 1));
          }
          throw fail();
        };
      },
    });
  const open = wrap(
    "open",
    async (path: string | URL, options?: Deno.OpenOptions) =>
      wrapFile(await Deno.open(path, options), String(path)),
  );
  return {
    operations,
    fileSystem: {
      open,
      mkdir: wrap("mkdir", Deno.mkdir),
      rename: wrap("rename", Deno.rename),
      remove: wrap("remove", Deno.remove),
      lstat: wrap("lstat", Deno.lstat),
      readDir(path) {
        if (isDue(`readDir ${path}`)) throw fail();
        return Deno.readDir(path);
      },
    },
  };
}

/** What the system says of a full disk. */
function fullDisk(): Error {
  return Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
}

/** Asserts that two states are bit for bit the same. */
export function assertSame(
  found: Awaited<ReturnType<SmallRun["contents"]>>,
  expected: Awaited<ReturnType<SmallRun["contents"]>>,
): void {
  assert.deepEqual(found, expected);
  assert.ok(Object.is(found.numbers.zero, expected.numbers.zero));
}
