/**
 * The first half of Llama's MLP in one kernel: both products of a row tile side by side, the activation in its epilogue.
 * @module
 */
import { SIGMOID4 } from "./elementwise.ts";
import { elementOf, input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, type VectorWidth } from "./lib.ts";
import type { MatmulConstants } from "./matmul.ts";
import { loadQuad, packQuad, quadType, type Storage, storageFunctions } from "./storage.ts";
import {
  operandBinding,
  rowOf,
  tileCols,
  tileDeclarations,
  tileProduct,
  tileRows,
  tileWorkgroupBytes,
} from "./tile.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** As of the product: A is x, B the weight, C is y (and gate_up). */
export interface SwigluLinearConstants extends Omit<MatmulConstants, "kind"> {
  /** Whether the two products are kept for the backward. */
  readonly saved: boolean;
}

/** y = silu(x Wg^T) (x Wu^T). */
export const swigluLinearForward: Kernel<SwigluLinearConstants> = {
  name: "swiglu_linear_forward",
  doc:
    `g = x Wg^T, u = x Wu^T, y = g sigmoid(g) u (arXiv 2002.05202, Eq. 6). x [M, K]; weight [2 F, K], Wg then Wu;
    y [M, F]; gate_up [M, 2 F], a row's g then its u, is saved where asked for.
    A workgroup owns a tile of y; half of its registers hold g, half u.`,
  build({ tile, vector, storage, saved }) {
    const element = (stored: Storage) => vector ? quadType(stored) : "f32";
    const n = "(2u * p.f)";
    const product = {
      tile,
      kind: "NT",
      vector,
      storage,
      pair: "p.f",
      a: "x",
      b: "weight",
      m: "p.m",
      n,
      k: "p.k",
    } as const;
    const [half, columns] = [tile.cols / 8, tileCols(tile) / 2];
    return {
      bindings: {
        x: operandBinding(tile, element(storage.a)),
        weight: operandBinding(tile, element(storage.b)),
        ...(saved ? { gate_up: output(element(storage.c)) } : {}),
        y: output(element(storage.c)),
      },
      params: { m: "u32", f: "u32", k: "u32" },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: tileDeclarations(product, storage.c) + SIGMOID4 +
        storeFunction({ vector, storage, saved }),
      body: wgsl`
let m0 = workgroup_id.y * ${tileRows(tile)}u;
let n0 = workgroup_id.x * ${columns}u;
${tileProduct(product)}
${
        unroll(tile.rows, (i) =>
          unroll(half, (j) => {
            const column = `n0 + ${4 * j * tile.lanesX}u + local_id.x * 4u`;
            return `store(${rowOf(tile, i)}, ${column}, c${i}_${j}, c${i}_${j + half});`;
          }))
      }`,
    };
  },
};

function storeFunction(
  { vector, storage, saved }: Pick<SwigluLinearConstants, "vector" | "storage" | "saved">,
): string {
  return wgsl`
fn store(row: u32, column: u32, gate: vec4f, up: vec4f) {
  if (row >= p.m || column >= p.f) { return; }
  let value = gate * sigmoid4(gate) * up;
#if ${vector}
  let quads = p.f / 4u;
  let quad = column / 4u;
#if ${saved}
  gate_up[row * 2u * quads + quad] = ${packQuad(storage.c, "gate")};
  gate_up[(row * 2u + 1u) * quads + quad] = ${packQuad(storage.c, "up")};
#endif
  y[row * quads + quad] = ${packQuad(storage.c, "value")};
#else
  for (var i = 0u; i < min(4u, p.f - column); i++) {
#if ${saved}
    gate_up[row * 2u * p.f + column + i] = gate[i];
    gate_up[(row * 2u + 1u) * p.f + column + i] = up[i];
#endif
    y[row * p.f + column + i] = value[i];
  }
#endif
}`;
}

/** Invocations per workgroup of {@link swigluLinearBackward}. */
export const SWIGLU_WORKGROUP = 64;

/** What the backward is specialised on. */
export interface SwigluBackwardConstants {
  /** Elements handled as one; divides F. */
  readonly width: VectorWidth;
  /** Of all tensors; f32 unless the width is 4. */
  readonly storage: Storage;
  /** Inputs through textures: for software adapters. */
  readonly texels: boolean;
}

/** dGateUp from dY: what both products' gradients are made of. */
export const swigluLinearBackward: Kernel<SwigluBackwardConstants> = {
  name: "swiglu_linear_backward",
  doc: `y = g s u, s = sigmoid(g): d_gate_up[m, f] = dy u s (1 + g (1 - s)), d_gate_up[m, F + f] = dy g s.
    gate_up, d_gate_up [M, 2 F]; d_y [M, F]. An invocation owns an element (or four) of d_y.`,
  build({ width, storage, texels }) {
    const type = width === 4 ? quadType(storage) : "f32";
    const read = texels ? { type, access: "texels" } as const : input(type);
    const value = (name: string, index: string) => {
      const stored = elementOf(read, name, index);
      return width === 4 ? loadQuad(storage, stored) : `vec4f(${stored})`;
    };
    const packed = (name: string) => width === 4 ? packQuad(storage, name) : `${name}.x`;
    return {
      bindings: { gate_up: read, d_y: read, d_gate_up: output(type) },
      params: { rows: "u32", columns: "u32" },
      workgroupSize: [SWIGLU_WORKGROUP, 1],
      declarations: storageFunctions(storage) + SIGMOID4,
      body: wgsl`
let count = p.columns / ${width}u;
let i = (${LINEAR_WORKGROUP}) * ${SWIGLU_WORKGROUP}u + local_id.x;
if (i >= p.rows * count) { return; }
let at = i + i / count * count;
let g = ${value("gate_up", "at")};
let u = ${value("gate_up", "at + count")};
let d = ${value("d_y", "i")};
let s = sigmoid4(g);
let d_gate = d * u * s * (1.0 + g * (1.0 - s));
let d_up = d * g * s;
d_gate_up[at] = ${packed("d_gate")};
d_gate_up[at + count] = ${packed("d_up")};`,
    };
  },
};
