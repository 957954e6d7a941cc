/**
 * `merge`: writes the merged model.
 * @module
 */
import { mergeAdapter } from "../adapters/merge.ts";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ConfigError, InputError } from "../errors.ts";
import { resolveModel } from "../hub/resolve_model.ts";
import type { Progress } from "../progress.ts";
import { stopOnSignal } from "../terminal.ts";
import { mergeFlagsSchema } from "./merge.ts";

/**
 * @param invocation of `merge`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runMerge(invocation: Invocation): Promise<number> {
  const flags = parseFlags(mergeFlagsSchema, invocation);
  const { model: adapter, base, output, dtype, maxShardGb, overwrite } = flags;
  const { log, progress: bar, result } = openConsole(invocation);
  if (!adapter || !output) {
    throw new ConfigError(
      `Cannot merge: expected --model (an adapter) and --output, found no ${
        adapter ? "--output" : "--model"
      }`,
    );
  }
  if (!overwrite) await refuseFiles(output);
  using stop = stopOnSignal();
  let progress: Progress | undefined;
  try {
    const summary = await mergeAdapter({
      ...{ adapter, base, output, dtype },
      maxShardBytes: maxShardGb && maxShardGb * 1e9,
      resolve: (name) => resolveModel(name, { log, progress: bar, signal: stop.signal }),
      onProgress(done, total) {
        progress ??= bar("merge", total);
        progress.update({ step: done });
        // Nothing has its final name before the last tensor.
        stop.signal.throwIfAborted();
      },
    });
    progress?.finish();
    progress = undefined;
    const { base: model, modules, dtype: type } = summary;
    result(
      { output, base: model, adapter, modules, dtype: type },
      `Wrote ${output}: ${model} with ${modules} layers of ${adapter}, in ${type}`,
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
