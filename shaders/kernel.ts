/**
 * Kernel descriptors: what a compute shader binds, which numbers it takes, and its body. The header that
 * declares all of it is written here, so that a kernel file holds only mathematics.
 * @module
 */

/** Element type of a storage binding; `vec2u` also holds four elements of 16 bits (see `storage.ts`). */
export type ElementType = "f32" | "vec4f" | "u32" | "vec2u" | "vec4u" | "i32";

/** A storage buffer of a kernel. */
export interface StorageBinding {
  /** Of one element. */
  readonly type: ElementType;
  /**
   * Outputs are `read_write`: most may accumulate into what is there. `texels` are inputs that the queue copies into a
   * texture first: software adapters fetch texels with vector gathers, but walk a buffer load lane by lane.
   */
  readonly access: "read" | "read_write" | "texels";
}

/** A number handed to the kernel with each dispatch, in the uniform block `p`. */
export type ParameterType = "u32" | "f32";

/** One compute shader, complete but for the device. */
export interface KernelSource {
  /** Storage buffers in binding order: inputs, saved, outputs. The uniform block follows them. */
  readonly bindings: Readonly<Record<string, StorageBinding>>;
  /** Members of the uniform block, in order. */
  readonly params: Readonly<Record<string, ParameterType>>;
  /** Invocations per workgroup. */
  readonly workgroupSize: readonly [number, number];
  /** Bytes of workgroup memory; checked by us because the platform does not check it. */
  readonly workgroupBytes?: number;
  /** Declarations and functions outside `main`. */
  readonly declarations?: string;
  /** The body of `main`; sees `workgroup_id`, `local_id` (vec3u), `num_workgroups`, the bindings and `p`. */
  readonly body: string;
}

/** A family of kernels: one per set of compile-time constants. */
export interface Kernel<Constants> {
  /** `<op>_<direction>`; labels pipelines and names the kernel on the command line. */
  readonly name: string;
  /** The maths, shapes, who owns a row, what is saved: printed above the source. */
  readonly doc: string;
  /** Describes the member of the family with these constants. */
  build(constants: Constants): KernelSource;
}

/** Shorthand for a read-only storage binding. */
export function input(type: ElementType): StorageBinding {
  return { type, access: "read" };
}

/** Shorthand for an input that is read through a texture, one texel an element; `f32`, `vec4f` or `vec2u`. */
export function texels(type: "f32" | "vec4f" | "vec2u"): StorageBinding {
  return { type, access: "texels" };
}

/** Texels in a row of such a texture, as a power of two. */
export const TEXEL_ROW_LOG2 = 12;

/** Expression: element `index` (a u32 expression) of a binding. */
export function elementOf(binding: StorageBinding, name: string, index: string): string {
  if (binding.access !== "texels") return `${name}[${index}]`;
  const components = { f32: ".x", vec2u: ".xy" }[binding.type as string] ?? "";
  return `textureLoad(${name}, texel_of(${index}), 0)${components}`;
}

const TEXEL_OF = `
fn texel_of(i: u32) -> vec2u { return vec2u(i & ${(1 << TEXEL_ROW_LOG2) - 1}u, i >> ${TEXEL_ROW_LOG2}u); }`;

/** Shorthand for a writable storage binding. */
export function output(type: ElementType): StorageBinding {
  return { type, access: "read_write" };
}

/**
 * Writes the complete WGSL of a kernel.
 *
 * @param kernel the family
 * @param constants the compile-time constants of this member
 * @param extensions what the compiler wants enabled: see `AdapterDescription.wgslExtensions` in engine/gpu.ts
 * @returns WGSL source with entry point `main`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { addForward } from "./elementwise.ts";
 *
 * const code = kernelWgsl(addForward, { storage: "f32", memory: "buffer" });
 * assert.match(code, /@binding\(0\) var<storage, read> a: array<vec4f>;/);
 * assert.match(code, /@compute/);
 * ```
 */
export function kernelWgsl<Constants>(
  kernel: Kernel<Constants>,
  constants: Constants,
  extensions: readonly string[] = [],
): string {
  const source = kernel.build(constants);
  const comment = kernel.doc.trim().split("\n").map((line) => `// ${line.trim()}`.trimEnd()).join("\n");
  const storage = Object.entries(source.bindings).map(([name, { access, type }], index) => {
    const texture = `texture_2d<${type === "vec2u" ? "u32" : "f32"}>`;
    return access === "texels"
      ? `@group(0) @binding(${index}) var ${name}: ${texture};`
      : `@group(0) @binding(${index}) var<storage, ${access}> ${name}: array<${type}>;`;
  });
  const usesTexels = Object.values(source.bindings).some(({ access }) => access === "texels");
  const members = Object.entries(source.params).map(([name, type]) => `  ${name}: ${type},`);
  const [x, y] = source.workgroupSize;
  return `// ${kernel.name} ${JSON.stringify(constants)}
${comment}
${[...extensions.map((name) => `enable ${name};`), ...storage].join("\n")}
struct Params {
${members.join("\n")}
}
@group(0) @binding(${storage.length}) var<uniform> p: Params;
${usesTexels ? TEXEL_OF : ""}${source.declarations ?? ""}
@compute @workgroup_size(${x}, ${y}, 1)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3u,
  @builtin(num_workgroups) num_workgroups: vec3u,
  @builtin(local_invocation_id) local_id: vec3u,
) {
${source.body}
}
`;
}
