/**
 * Log-probs of the reference, kept on disk under a key of everything they depend on.
 * @module
 */
import type { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { toHost } from "../engine/tensor.ts";
import { writeFileAtomically } from "./atomic_file.ts";
import type { EncodedPair } from "./data/encode.ts";
import { InputError } from "./errors.ts";
import type { Model } from "./models/model.ts";
import { type ReferenceLogps, referenceLogps, type ReferenceOptions, sidesOf } from "./reference.ts";
import { faultOf, isSystemError, makeFolder } from "./write_error.ts";

/** Changes when the computation does, so that old results are not taken for new ones. */
const CACHE_FORMAT = 2;

/**
 * {@linkcode referenceLogps}, kept in a folder. What was computed before for the same weights (those of an adapter too),
 * config and token ids is read back instead: those are the key, so a stale result cannot be found.
 *
 * @param model the reference, as it is now
 * @param pairs the data
 * @param options the folder, made when it does not exist; and as for {@linkcode referenceLogps}
 * @returns `[P]` of each side, in nats, under `ldAlpha` too where that is given
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * const source = { file: "example" };
 * const [chosen, rejected] = [[3], [4, 5]].map((completionIds) => ({ promptIds: [1, 2], completionIds, source }));
 * const pairs = [{ chosen, rejected, source }];
 * const folder = await Deno.makeTempDir();
 * const computed = await cachedReferenceLogps(model, pairs, { folder });
 * assert.deepEqual(await cachedReferenceLogps(model, pairs, { folder }), computed); // read back
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function cachedReferenceLogps(
  model: Model,
  pairs: readonly EncodedPair[],
  options: ReferenceOptions & { readonly folder: string },
): Promise<ReferenceLogps> {
  const { folder, ...computing } = options;
  const { ldAlpha } = computing;
  const path = join(folder, `${await cacheKey(model, pairs, ldAlpha)}.f32`);
  // What a planning device gives is no result.
  if (model.gpu.isPlanning) return await referenceLogps(model, pairs, computing);
  const kept = await readCached(path, pairs.length * (ldAlpha === undefined ? 2 : 4));
  if (kept) return split(kept, ldAlpha);
  const logps = await referenceLogps(model, pairs, computing);
  await writeCached(path, joined(logps));
  return logps;
}

async function cacheKey(model: Model, pairs: readonly EncodedPair[], ldAlpha?: number): Promise<string> {
  const hash = createHash("sha256");
  if (ldAlpha !== undefined) hash.update(JSON.stringify({ ldAlpha }));
  // Adapter and type are part of it: they round differently, and a run is deterministic only on one adapter.
  hash.update(JSON.stringify([CACHE_FORMAT, model.gpu.adapter.name, model.config, model.dtype]));
  if (model.adapter) {
    const { config: { base: _, ...config }, modules } = model.adapter;
    hash.update(JSON.stringify([config, ...modules]));
  }
  for (const block of [...model.parameters.blocks, ...model.adapter?.parameters.blocks ?? []]) {
    const weights = await toHost(block.weight);
    if (!model.gpu.isPlanning) hash.update(new Uint8Array(weights.buffer));
  }
  for (const { chosen, rejected } of pairs) {
    hash.update(
      JSON.stringify([chosen.promptIds, chosen.completionIds, rejected.promptIds, rejected.completionIds]),
    );
  }
  return hash.digest("hex");
}

/** The values, then their SHA-256. */
async function writeCached(path: string, sums: Float32Array<ArrayBuffer>): Promise<void> {
  await makeFolder(dirname(path));
  const bytes = new Uint8Array(sums.buffer);
  await writeFileAtomically(path, async (append) => {
    await append(bytes);
    await append(digestOf(bytes));
  });
}

/** What was kept, or nothing where the file is missing or damaged: it is computed again then, and replaced. */
async function readCached(path: string, count: number): Promise<Float32Array | undefined> {
  try {
    const bytes = await Deno.readFile(path);
    const [values, digest] = [bytes.slice(0, count * 4), bytes.subarray(count * 4)];
    return digestOf(values).equals(digest) ? new Float32Array(values.buffer) : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (!isSystemError(error)) throw error;
    throw new InputError(`Cannot read ${path}: expected a readable file, found ${faultOf(error)}`, {
      cause: error,
    });
  }
}

function digestOf(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

/** Side after side: the plain sums, then those under `ldAlpha`, where there are any. */
function joined({ desensitized, ...plain }: ReferenceLogps): Float32Array<ArrayBuffer> {
  const sides = [plain, ...(desensitized ? [desensitized] : [])].flatMap((of) => [of.chosen, of.rejected]);
  const values = new Float32Array(sides.reduce((total, side) => total + side.length, 0));
  let offset = 0;
  for (const side of sides) {
    values.set(side, offset);
    offset += side.length;
  }
  return values;
}

function split(values: Float32Array, ldAlpha?: number): ReferenceLogps {
  if (ldAlpha === undefined) return sidesOf(values);
  const half = values.length / 2;
  return {
    ...sidesOf(values.subarray(0, half)),
    desensitized: { ldAlpha, ...sidesOf(values.subarray(half)) },
  };
}
