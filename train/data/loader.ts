/**
 * The order in which a run sees its data: epochs shuffled by seed, cut into batches, resumable at any batch.
 * @module
 */
import * as z from "zod";
import { createRandom, deriveSeed, shuffle } from "../random.ts";
import { DataError } from "./errors.ts";
import { mixtureOrder, type MixturePart, samplesPerEpoch } from "./mixture.ts";

/** One batch: which items, in order, and where it stands in the run. */
export interface LoaderBatch {
  /** Epoch, from 0. */
  epoch: number;
  /** Batch within the epoch, from 0. */
  batch: number;
  /**
   * `[B]` indices into the data, all different unless sources are weighted; fewer than B only in a last batch that is
   * kept.
   */
  indices: Uint32Array;
}

/** How the data is cut into batches. */
export interface LoaderOptions {
  /** How many items there are. */
  count: number;
  /** Items per batch. */
  batchSize: number;
  /** The run's seed. Epoch e is ordered by the seed and e alone, whatever came before. */
  seed: number;
  /** Another order in each epoch (the default), or the data's own order. */
  shuffle?: boolean;
  /** What happens to a last batch that is not full: left out of its epoch (the default), or kept short. */
  lastBatch?: "drop" | "keep";
  /** Sources whose items together are the data, to draw from by weight; without them every item comes once an epoch. */
  parts?: readonly MixturePart[];
}

type Settings = Required<Omit<LoaderOptions, "parts">> & Pick<LoaderOptions, "parts">;

/** Where a loader stands, with what it was made from: plain data, for a checkpoint. */
export interface LoaderState extends Settings {
  /** Epoch of the next batch. */
  epoch: number;
  /** Number within that epoch of the next batch. */
  batch: number;
}

/** An endless sequence of batches. */
export interface Loader {
  /** Full batches per epoch, plus a short one that is kept. */
  readonly batchesPerEpoch: number;
  /** The next batch; after an epoch's last one, the first of the next epoch. */
  next(): LoaderBatch;
  /** Where the loader stands; give it to {@linkcode createLoader} to continue there. */
  state(): LoaderState;
}

const COUNT = z.int().min(0);
const STATE = z.strictObject({
  count: COUNT.min(1),
  batchSize: COUNT.min(1),
  seed: z.int(),
  shuffle: z.boolean(),
  lastBatch: z.enum(["drop", "keep"]),
  parts: z.array(z.strictObject({ count: COUNT.min(1), weight: z.number().positive() })).optional(),
  epoch: COUNT,
  batch: COUNT,
});

/**
 * Make a loader, at the start or where an earlier one stood.
 *
 * @param options see {@linkcode LoaderOptions}
 * @param state what an earlier loader's `state()` returned
 * @throws {RangeError} a count, batch size or seed that is not an integer in range
 * @throws {DataError} fewer items than one batch; a state of another data set or of other options
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const options = { count: 10, batchSize: 4, seed: 1 };
 * const loader = createLoader(options);
 * loader.next();
 * const resumed = createLoader(options, loader.state());
 * assert.deepEqual(resumed.next(), loader.next());
 * ```
 */
export function createLoader(options: LoaderOptions, state?: LoaderState): Loader {
  const settings = checkedOptions(options);
  const { count, batchSize, seed } = settings;
  const batchesPerEpoch = settings.lastBatch === "keep"
    ? Math.ceil(count / batchSize)
    : Math.floor(count / batchSize);
  let { epoch, batch } = state === undefined
    ? { epoch: 0, batch: 0 }
    : checkedState(state, { ...settings, batchesPerEpoch });
  let order: Uint32Array | undefined;

  const orderOf = (epoch: number) => {
    const { parts } = settings;
    if (parts) return mixtureOrder(parts, { seed, epoch, shuffle: settings.shuffle });
    const indices = Uint32Array.from({ length: count }, (_, i) => i);
    return settings.shuffle ? shuffle(createRandom(deriveSeed(seed, "loader", epoch)), indices) : indices;
  };
  return {
    batchesPerEpoch,
    next() {
      order ??= orderOf(epoch);
      const result = { epoch, batch, indices: order.slice(batch * batchSize, (batch + 1) * batchSize) };
      batch++;
      if (batch === batchesPerEpoch) {
        epoch++;
        batch = 0;
        order = undefined;
      }
      return result;
    },
    state: () => ({ ...settings, epoch, batch }),
  };
}

function checkedOptions(options: LoaderOptions): Settings {
  const { count, batchSize, seed, shuffle = true, lastBatch = "drop" } = options;
  if (!Number.isInteger(count) || count < 0) {
    throw new RangeError(`Cannot load data: expected a count of at least 0, found ${count}`);
  }
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new RangeError(`Cannot load data: expected a batch size of at least 1, found ${batchSize}`);
  }
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot load data: expected an integer seed, found ${seed}`);
  }
  // Also with "keep": a run whose every batch is short does not do what its batch size says.
  if (count < batchSize) {
    throw new DataError(
      `Cannot load data: expected at least one batch of ${batchSize} records, found ${count} records`,
    );
  }
  const { parts } = options;
  if (parts === undefined) return { count, batchSize, seed, shuffle, lastBatch };
  const sum = parts.reduce((total, part) => total + part.count, 0);
  if (sum !== count) {
    throw new RangeError(`Cannot load data: expected sources of ${count} items together, found ${sum}`);
  }
  samplesPerEpoch(parts, count);
  return { count, batchSize, seed, shuffle, lastBatch, parts };
}

function checkedState(
  state: LoaderState,
  settings: Settings & { batchesPerEpoch: number },
): { epoch: number; batch: number } {
  const parsed = STATE.safeParse(state);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw new DataError(
      `Cannot resume the data order: expected a loader's state, found "${path.join(".")}": ${message}`,
    );
  }
  for (const key of ["count", "batchSize", "seed", "shuffle", "lastBatch"] as const) {
    if (parsed.data[key] !== settings[key]) {
      throw new DataError(
        `Cannot resume the data order: expected ${key} ${settings[key]}, found ${
          parsed.data[key]
        } in the state`,
      );
    }
  }
  const [expected, found] = [settings.parts, parsed.data.parts].map((parts) =>
    JSON.stringify(parts) ?? "none"
  );
  if (expected !== found) {
    throw new DataError(
      `Cannot resume the data order: expected sources ${expected}, found ${found} in the state`,
    );
  }
  if (parsed.data.batch >= settings.batchesPerEpoch) {
    throw new DataError(
      `Cannot resume the data order: expected a batch below ${settings.batchesPerEpoch}, found ${parsed.data.batch}`,
    );
  }
  return parsed.data;
}
