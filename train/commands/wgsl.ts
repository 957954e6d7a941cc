/**
 * `wgsl`: flags and help.
 * @module
 */
import { z } from "zod";
import { type Command, type Meanings, RUN } from "./command.ts";

/** Flags of `wgsl`. */
export const wgslFlagsSchema = z.strictObject({
  /** Name the kernels. */
  list: z.boolean().default(false),
  /** Constants of the member that is printed. */
  set: z.string().min(1).optional(),
});

const WGSL_MEANINGS: Meanings<keyof z.output<typeof wgslFlagsSchema>> = {
  list: [RUN, "name every kernel and what it is for; of one kernel, the constants of its members"],
  set: [RUN, "constants, name=value joined by commas (default: the first member's)"],
};

/** Prints a kernel. */
export const wgslCommand: Command<typeof wgslFlagsSchema> = {
  schema: wgslFlagsSchema,
  takesConfig: false,
  json:
    "print one JSON object: name, purpose, constants, bindings, params, workgroupSize, wgsl; of --list an array",
  words: "[KERNEL]",
  summary: "Prints the WGSL of a kernel as the engine compiles it, to read or to reuse. Needs no GPU.",
  meanings: WGSL_MEANINGS,
  examples: [
    "deno task wgsl --list",
    "deno task wgsl rms_norm_forward",
    "deno task wgsl attention_tiles_forward --list",
    "deno task wgsl attention_tiles_forward --set headDim=64,storage=f16",
    "deno task wgsl pair_loss --set terms.0.loss=ipo --json",
  ],
  access: { paths: {}, usesGpu: () => false, caches: [] },
  load: async () => (await import("./run_wgsl.ts")).runWgsl,
};
