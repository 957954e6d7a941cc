/**
 * An adapter and its base as one checkpoint: W + s B A for every layer that it changes, tensor by tensor on the host.
 * @module
 */
import { basename, dirname, join } from "node:path";
import type { DType } from "../../engine/dtype.ts";
import { sizeOf } from "../../engine/shape.ts";
import { writeFileAtomically } from "../atomic_file.ts";
import { writeFolderAtomically } from "../atomic_folder.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TOKENIZER_FILES } from "../data/tokenizer_files.ts";
import { saveTokenizer } from "../data/tokenizer_folder.ts";
import { InputError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";
import { cannotWrite } from "../write_error.ts";
import type { Architecture } from "../models/architecture.ts";
import { type Checkpoint, openCheckpoint } from "../models/checkpoint.ts";
import { isCheckpointFile, writeCheckpoint } from "../models/checkpoint_write.ts";
import { storedNames } from "../models/check_weights.ts";
import { type BaseOptions, checkModelOrAdapter } from "../models/load_model.ts";
import { CARD_FILE, readCard, refuseOtherCard, writeCard } from "../model_card/files.ts";
import { mergedCard } from "../model_card/merged_card.ts";
import { architectureOf } from "../models/registry.ts";
import { openSafetensors, type SafetensorsFile, weightDType } from "../models/safetensors.ts";
import type { TensorSource } from "../models/safetensors_write.ts";
import { readAdapterConfig } from "./adapter_config.ts";
import { ADAPTER_WEIGHTS, checkAdapter, storedFactor } from "./adapter_files.ts";
import { loraScale } from "./lora_config.ts";

/** Host bytes of a weight that are worked on at a time; the factors of one layer come on top. */
const CHUNK_BYTES = 16 * 2 ** 20;

/** What to merge, and how to write it. */
export interface MergeOptions extends BaseOptions {
  /** Folder of the adapter. */
  readonly adapter: string;
  /** Folder of the merged model; takes the place of a model that is there. */
  readonly output: string;
  /** Element type of its weights; that of the base's by default. */
  readonly dtype?: DType;
  /** Bytes of tensors in one file: see `writeCheckpoint`. */
  readonly maxShardBytes?: number;
  /** Told how many of how many tensors are done. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Deno by default. */
  readonly fileSystem?: FileSystem;
}

/** What was merged. */
export interface MergeSummary {
  /** Folder of the base. */
  readonly base: string;
  /** Linear layers that changed. */
  readonly modules: number;
  /** Element type of the weights written. */
  readonly dtype: DType;
}

/**
 * Writes a base with an adapter merged into it, for whoever loads whole models. Sums are f64, rounded once to the type
 * written. Host memory stays at a few pieces of a tensor, whatever the model. The folder appears whole: whatever fails
 * before leaves nothing, or the model that was there.
 *
 * @param options the adapter, its base, where to write
 * @returns what was merged
 * @throws {CheckpointError} naming file and tensor: also when the adapter was made for another base
 * @throws {InputError} when the folder is no adapter's, or the output would replace an input, files of no model or a
 * README.md that Keel did not write
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
 * import { createTokenizer } from "../data/tokenizer.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { createModel } from "../models/model.ts";
 * import { saveModel } from "../models/model_files.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { saveAdapter } from "./adapter_files.ts";
 * import { addLora } from "./lora.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const [base, folder] = [await Deno.makeTempDir(), await Deno.makeTempDir()];
 * const whole = createModel(gpu, config, { trainable: false });
 * await saveModel(base, whole, { tokenizer });
 * using model = addLora(whole, { rank: 2, base });
 * await saveAdapter(folder, model);
 * const output = await Deno.makeTempDir();
 * const { modules, dtype } = await mergeAdapter({ adapter: folder, output });
 * assert.deepEqual([modules, dtype], [7, "f32"]);
 * ```
 */
export async function mergeAdapter(options: MergeOptions): Promise<MergeSummary> {
  const { folders, config, tokenizer } = await checkModelOrAdapter(options.adapter, options);
  if (folders.adapter === undefined) {
    throw new InputError(
      `Cannot merge ${options.adapter}: expected the folder of an adapter (adapter_config.json), found none`,
    );
  }
  await refuseInputs(options.output, [folders.base, folders.adapter]);
  await refuseOtherCard(options.output);
  const architecture = architectureOf(config);
  using base = await openCheckpoint(folders.base);
  using adapter = await openSafetensors(join(folders.adapter, ADAPTER_WEIGHTS));
  const settings = await readAdapterConfig(folders.adapter);
  const modules = checkAdapter(adapter, architecture, { config: settings, folder: folders.adapter });
  const source = { base, adapter, architecture, modules: new Set(modules), scale: loraScale(settings) };
  const dtype = options.dtype ?? storedType(source, modules[0]);
  const card = mergedCard(options, { base: settings.base, card: await readCard(folders.adapter) });
  const folder = await outputFolder(options.output);
  await writeFolderAtomically(
    folder,
    (partial) => writeMerged(partial, source, { ...options, dtype, tokenizer, card }),
    { fileSystem: options.fileSystem, makesParents: true },
  );
  return { base: folders.base, modules: modules.length, dtype };
}

async function writeMerged(
  folder: string,
  source: MergeSource,
  options: MergeOptions & { dtype: DType; tokenizer: Tokenizer; card: string },
): Promise<void> {
  const { dtype, tokenizer, maxShardBytes, card, fileSystem } = options;
  await writeCheckpoint(folder, tensorsOf(source, options), { dtype, maxShardBytes, fileSystem });
  const json = JSON.stringify(source.architecture.configJson({ dtype }), null, 2) + "\n";
  const bytes = new TextEncoder().encode(json);
  await writeFileAtomically(join(folder, "config.json"), (append) => append(bytes), { fileSystem });
  await saveTokenizer(tokenizer, folder, { fileSystem });
  await writeCard(folder, card, { fileSystem });
}

/**
 * The folder that is to be replaced, without a slash at its end. A link is replaced, and where it leads stays as it is.
 *
 * @throws {InputError} when it holds what is no part of a model, which would be lost
 */
async function outputFolder(output: string): Promise<string> {
  try {
    for await (const { name } of Deno.readDir(output)) {
      if (!isModelFile(name)) {
        throw new InputError(
          `Cannot merge into ${output}: expected nothing in it but an earlier model, found ${name}`,
        );
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw cannotWrite(output, error);
  }
  return join(dirname(output), basename(output));
}

function isModelFile(name: string): boolean {
  const others: readonly string[] = ["config.json", "generation_config.json", CARD_FILE, ...TOKENIZER_FILES];
  return others.includes(name) || isCheckpointFile(name);
}

async function refuseInputs(output: string, inputs: readonly string[]): Promise<void> {
  const real = async (path: string) => {
    try {
      return await Deno.realPath(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw cannotWrite(output, error);
    }
  };
  const target = await real(output);
  for (const input of inputs) {
    if (target !== undefined && target === await real(input)) {
      throw new InputError(
        `Cannot merge into ${output}: expected another folder than what is merged, found ${input}`,
      );
    }
  }
}

interface MergeSource {
  readonly base: Checkpoint;
  readonly adapter: SafetensorsFile;
  readonly architecture: Architecture;
  readonly modules: ReadonlySet<string>;
  readonly scale: number;
}

function storedType({ base, architecture }: MergeSource, module: string): DType {
  const stored = storedNames(base.tensors.keys(), architecture);
  return weightDType(base.tensors.get(stored(`${module}.weight`))!);
}

/** Every parameter, merged when its turn comes. */
function tensorsOf(source: MergeSource, { onProgress }: Pick<MergeOptions, "onProgress">): TensorSource[] {
  const { architecture: { shapes }, modules } = source;
  let done = 0;
  return [...shapes].map(([name, shape]) => ({
    name,
    shape,
    async *data() {
      const module = name.endsWith(".weight") ? name.slice(0, -".weight".length) : "";
      const update = modules.has(module) ? await updateOf(source, module) : undefined;
      for await (const { values, firstRow } of piecesOf(source, name)) {
        if (update) addRows(values, { ...update, firstRow });
        yield values;
      }
      onProgress?.(++done, shapes.size);
    },
  }));
}

async function* piecesOf(
  { base, architecture }: MergeSource,
  name: string,
): AsyncGenerator<{ values: Float32Array; firstRow: number }> {
  const stored = storedNames(base.tensors.keys(), architecture)(name);
  const [rows, ...inner] = architecture.shapes.get(name)!;
  const step = Math.max(1, Math.floor(CHUNK_BYTES / (4 * sizeOf(inner))));
  for (let first = 0; first < rows; first += step) {
    const end = Math.min(rows, first + step);
    yield { values: await base.read(stored, { rows: [first, end], finite: true }), firstRow: first };
  }
}

/** A product of two factors, as the weight lies: its rows are those of `left` times `right`. */
interface Update {
  /** `[rows, r]` */
  readonly left: Float64Array;
  /** `[r, columns]` */
  readonly right: Float64Array;
  readonly rank: number;
  readonly columns: number;
}

/** s B A for `[out, in]`, its transpose s A^T B^T for `[in, out]`. */
async function updateOf({ adapter, architecture, scale }: MergeSource, module: string): Promise<Update> {
  const [a, b] = [
    await adapter.read(storedFactor(module, "A"), { finite: true }),
    await adapter.read(storedFactor(module, "B"), { finite: true }),
  ];
  const [rows, columns] = architecture.shapes.get(`${module}.weight`)!;
  const isOutIn = architecture.weightLayout === "out_in";
  const rank = b.length / (isOutIn ? rows : columns);
  const left = isOutIn ? Float64Array.from(b) : transposed(a, rows);
  const right = isOutIn ? Float64Array.from(a) : transposed(b, rank);
  return { left: left.map((value) => scale * value), right, rank, columns };
}

/** @param columns of the matrix that is turned */
function transposed(matrix: Float32Array, columns: number): Float64Array {
  const rows = matrix.length / columns;
  const turned = new Float64Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      turned[column * rows + row] = matrix[row * columns + column];
    }
  }
  return turned;
}

/** Adds the update's rows from `firstRow` on to a piece of the weight. */
function addRows(
  values: Float32Array,
  { left, right, rank, columns, firstRow }: Update & { firstRow: number },
): void {
  const sums = new Float64Array(columns);
  for (let start = 0, row = firstRow; start < values.length; start += columns, row++) {
    sums.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = left[row * rank + k];
      const offset = k * columns;
      for (let column = 0; column < columns; column++) sums[column] += factor * right[offset + column];
    }
    for (let column = 0; column < columns; column++) values[start + column] += sums[column];
  }
}
