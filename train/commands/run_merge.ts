/**
 * `merge`: writes the merged model.
 * @module
 */
import { mergeAdapter } from "../adapters/merge.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ConfigError, InputError } from "../errors.ts";
import { resolveModel } from "../hub/resolve_model.ts";
import { stopOnSignal, terminalProgress } from "../terminal.ts";
import { mergeFlagsSchema } from "./merge.ts";

/**
 * @param invocation of `merge`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runMerge(invocation: Invocation): Promise<number> {
  const flags = parseFlags(mergeFlagsSchema, invocation);
  const { model: adapter, base, output, dtype, maxShardGb, overwrite } = flags;
  if (!adapter || !output) {
    throw new ConfigError(
      `Cannot merge: expected --model (an adapter) and --output, found no ${
        adapter ? "--output" : "--model"
      }`,
    );
  }
  if (!overwrite) await refuseFiles(output);
  using stop = stopOnSignal();
  let progress: ReturnType<typeof terminalProgress> | undefined;
  try {
    const summary = await mergeAdapter({
      ...{ adapter, base, output, dtype },
      maxShardBytes: maxShardGb && maxShardGb * 1e9,
      resolve: (name) =>
        resolveModel(name, { log: console.error, progress: terminalProgress, signal: stop.signal }),
      onProgress(done, total) {
        progress ??= terminalProgress("merge", total);
        progress.update({ step: done });
        // Nothing has its final name before the last tensor.
        stop.signal.throwIfAborted();
      },
    });
    progress?.finish();
    progress = undefined;
    console.log(
      `Wrote ${output}: ${summary.base} with ${summary.modules} layers of ${adapter}, in ${summary.dtype}`,
    );
  } finally {
    progress?.finish();
  }
  return 0;
}

async function refuseFiles(folder: string): Promise<void> {
  try {
    for await (const { name } of Deno.readDir(folder)) {
      throw new InputError(
        `Cannot write to ${folder}: expected a new or empty folder, found ${name} in it (use --overwrite, or another ` +
          "--output)",
      );
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (error instanceof Deno.errors.NotADirectory) {
      throw new InputError(`Cannot write to ${folder}: expected a folder, found a file`, { cause: error });
    }
    throw error;
  }
}
