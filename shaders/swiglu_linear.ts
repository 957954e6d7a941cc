/**
 * The first half of Llama's MLP in one kernel: both products of a row tile side by side, the activation in its epilogue.
 * @module
 */
import { SIGMOID4 } from "./elementwise.ts";
import { type Kernel, output } from "./kernel.ts";
import type { MatmulConstants } from "./matmul.ts";
import { packQuad, quadType, type Storage } from "./storage.ts";
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
