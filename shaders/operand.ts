/**
 * How kernels that handle a row's elements one or four at a time read and write tensors of any storage.
 * @module
 */
import { elementOf, type ElementType, input, output, type StorageBinding, texels } from "./kernel.ts";
import type { VectorWidth } from "./lib.ts";
import { loadQuad, packQuad, quadType, type Storage } from "./storage.ts";

/** Where inputs are read: as they lie, or through textures, which software adapters prefer (see `StorageBinding`). */
export type InputMemory = "buffer" | "texels";

/** How a kernel sees its tensors. */
export interface OperandConstants {
  /** Elements handled as one; 4 for sixteen-bit storage. */
  readonly width: VectorWidth;
  /** Of activations and their gradients. */
  readonly storage: Exclude<Storage, "bf16">;
  /** Of inputs that lanes read at different places. */
  readonly memory: InputMemory;
}

/** Writes the bindings, loads and stores of tensors under the same constants. */
export interface Operands {
  /** Binding of an input. */
  readonly input: StorageBinding;
  /** Binding of an output. */
  readonly output: StorageBinding;
  /** Expression: element or quad `index` of the input `name`, in f32. */
  load(name: string, index: string): string;
  /** Expression: what the output `name` holds at `index`, in f32. */
  stored(name: string, index: string): string;
  /** Statement: stores the f32 expression `value` at `index` of the output `name`. */
  store(name: string, index: string, value: string): string;
}

/** Tensors as these constants describe them. */
export function operands({ width, storage, memory }: OperandConstants): Operands {
  const type: ElementType = width === 4 ? quadType(storage) : "f32";
  const binding = memory === "texels" ? texels(type as "f32" | "vec4f" | "vec2u") : input(type);
  return {
    input: binding,
    output: output(type),
    load: (name, index) => loadQuad(storage, elementOf(binding, name, index)),
    stored: (name, index) => loadQuad(storage, `${name}[${index}]`),
    store: (name, index, value) => `${name}[${index}] = ${packQuad(storage, value)};`,
  };
}
