/**
 * Moves one flat buffer of parameters towards another.
 * @module
 */
import { input, type Kernel, output, type StorageBinding } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { packQuad, quadType, storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const MIX_WORKGROUP = 64;

/** What the pipeline is specialised on. */
export interface MixConstants {
  /** Also writes the result as f16, for the kernels that read it. */
  readonly copy: boolean;
}

/** The mix, in place. */
export const mix: Kernel<MixConstants> = {
  name: "mix",
  doc:
    `y = alpha x + (1 - alpha) y; copy receives y as f16, where there is one. An invocation owns four parameters.`,
  build({ copy }) {
    const copied: Record<string, StorageBinding> = copy ? { copy: output(quadType("f16")) } : {};
    return {
      bindings: { x: input("vec4f"), y: output("vec4f"), ...copied },
      params: { quads: "u32", alpha: "f32", rest: "f32" },
      workgroupSize: [MIX_WORKGROUP, 1],
      ...(copy ? { declarations: storageFunctions("f16") } : {}),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${MIX_WORKGROUP}u + local_id.x;
if (i >= p.quads) { return; }
let mixed = p.alpha * x[i] + p.rest * y[i];
y[i] = mixed;
#if ${copy}
copy[i] = ${packQuad("f16", "mixed")};
#endif`,
    };
  },
};
