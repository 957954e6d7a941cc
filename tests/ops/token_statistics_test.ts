import assert from "node:assert/strict";
import { narrow, widen } from "../../engine/dtype.ts";
import type { Gpu, Storage } from "../../engine/mod.ts";
import { tokenLogps, tokenLogpsWithStatistics } from "../../engine/ops/token_logps.ts";
import type { Shape } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, release, upload, writeHost } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/token_logps.ts";
import { assertClose } from "./check_op.ts";

interface Case {
  name: string;
  R: number;
  C: number;
  V: number;
  shards?: number[];
  /** Standard deviation of hidden states, 1 by default; logits have it times sqrt(C). */
  scale?: number;
  /** Rows of the head that are copies of others, so that their logits are equal: the largest of each row are among them. */
  ties?: (v: number) => number;
  hiddenType?: "f32" | "f16";
  headType?: Storage;
}

const CASES: Case[] = [
  { name: "a vocabulary of one", R: 3, C: 17, V: 1 },
  { name: "scalar loads", R: 17, C: 17, V: 17 },
  { name: "vector loads", R: 65, C: 64, V: 64 },
  { name: "four chunks and a part of a tile", R: 64, C: 64, V: 1001 },
  { name: "large logits", R: 17, C: 64, V: 257, scale: 10 },
  { name: "three shards", R: 9, C: 17, V: 400, shards: [17, 300, 83] },
  // Each logit twice: in one quad, in one tile, in two chunks, in two shards.
  { name: "neighbours tied", R: 33, C: 16, V: 300, ties: (v) => v - v % 2 },
  { name: "ids of one tile tied", R: 33, C: 16, V: 300, ties: (v) => v % 150 },
  { name: "ids of chunks tied", R: 33, C: 16, V: 1024, ties: (v) => v % 512 },
  { name: "ids of shards tied", R: 33, C: 16, V: 300, shards: [150, 150], ties: (v) => v % 150 },
  { name: "all tied", R: 4, C: 16, V: 777, ties: () => 0 },
  { name: "f16", R: 17, C: 16, V: 203, hiddenType: "f16", headType: "f16" },
  { name: "a bf16 head", R: 17, C: 16, V: 200, headType: "bf16" },
];

for (const one of CASES) {
  gpuTest(
    `token statistics ${one.R}x${one.C}x${one.V}: ${one.name}`,
    (gpu) => checkStatistics(gpu, one),
    { layouts: LAYOUTS },
  );
}

/** Half of the rows are labelled with their largest logit, so that both outcomes of a hit occur. */
function makeInputs({ R, C, V, scale = 1, ties = (v) => v, hiddenType = "f32", headType = "f32" }: Case) {
  const random = seededRandom(R + V);
  const hidden = Float32Array.from(normals(random, { length: R * C, scale }));
  const drawn = normals(random, { length: V * C });
  const head = Float32Array.from(drawn, (_, i) => drawn[ties(Math.floor(i / C)) * C + i % C]);
  const stored = (values: Float32Array<ArrayBuffer>, type: Storage) =>
    Float64Array.from(widen(narrow(values, type), type));
  const inputs = { hidden: stored(hidden, hiddenType), lmHead: stored(head, headType) };
  const labels = Uint32Array.from(integers(random, { length: R, high: V }));
  for (let n = 0; n < R; n += 2) labels[n] = likeliest(inputs, { n, C, V });
  // The second of a tie is not the likeliest, though its logit is as large.
  const twin = (label: number) => Array.from({ length: V }, (_, v) => v).findLast((v) => ties(v) === label)!;
  for (let n = 1; n < R; n += 2) labels[n] = twin(likeliest(inputs, { n, C, V }));
  if (R > 4) labels[3] = V - 1;
  return { hidden, head, inputs: { ...inputs, labels } };
}

function likeliest(
  { hidden, lmHead }: Record<"hidden" | "lmHead", Float64Array>,
  { n, C, V }: { n: number; C: number; V: number },
): number {
  const logit = (v: number) => {
    let total = 0;
    for (let c = 0; c < C; c++) total += hidden[n * C + c] * lmHead[v * C + c];
    return total;
  };
  let best = 0;
  for (let v = 1; v < V; v++) if (logit(v) > logit(best)) best = v;
  return best;
}

async function checkStatistics(gpu: Gpu, one: Case): Promise<void> {
  const { R, C, V, shards = [V], scale = 1, hiddenType = "f32", headType = "f32" } = one;
  const { hidden, head, inputs } = makeInputs(one);
  const place = (values: Float32Array<ArrayBuffer>, shape: Shape, type: Storage) => {
    const tensor = empty(gpu, shape, { type, owner: "caller" });
    writeHost(tensor, values);
    return tensor;
  };
  let first = 0;
  const parts = shards.map((rows) => {
    const part = place(head.slice(first * C, (first + rows) * C), [rows, C], headType);
    first += rows;
    return part;
  });
  const rows = place(hidden, [R, C], hiddenType);
  using tape = new Tape(gpu);
  const plain = tape.keep(tokenLogps(rows, parts, upload(gpu, inputs.labels)));
  const { logps, statistics } = tokenLogpsWithStatistics(rows, parts, upload(gpu, inputs.labels));
  const [withoutThem, withThem, found] = await readAll(gpu, [plain, tape.keep(logps), tape.keep(statistics)]);
  [rows, ...parts, plain, logps, statistics].forEach(release);
  assert.deepEqual(withThem, withoutThem, "the log-probs, bit for bit");
  const expected = reference.statistics(inputs, { N: R, C, V });
  reference.STATISTICS.forEach((name, i) => {
    const column = (values: ArrayLike<number>) => Array.from({ length: R }, (_, n) => values[4 * n + i]);
    // Logits of magnitude 250 are rounded to 3e-5 many times over, as are their differences.
    const close = scale === 10 ? { atol: 5e-4, rtol: 1e-4 } : { atol: 2e-5 };
    assertClose(column(found), column(expected), { what: name, ...(i === 2 ? { atol: 0, rtol: 0 } : close) });
  });
  if (V > 1) {
    const hits = expected.filter((_, i) => i % 4 === 2).reduce((total, hit) => total + hit, 0);
    assert.ok(hits > 0 && hits < R || one.name === "all tied", "both outcomes");
  }
}

gpuTest("the statistics of one certain logit of 80 among others of -80 are exact", async (gpu) => {
  const V = 300;
  const values = new Float32Array(V * 4);
  for (let v = 0; v < V; v++) values[4 * v] = v === 123 ? 80 : -80;
  const hidden = upload(gpu, Float32Array.of(1, 0, 0, 0), { shape: [1, 4] });
  const head = upload(gpu, values, { shape: [V, 4] });
  using tape = new Tape(gpu);
  const statistics = tape.keep(
    tokenLogpsWithStatistics(hidden, [head], upload(gpu, Uint32Array.of(123))).statistics,
  );
  const [found] = await readAll(gpu, [statistics]);
  release(statistics);
  assertClose(found, [0, (80 - 80 * (V - 1)) / V, 1, 0], { what: "statistics", atol: 0, rtol: 1e-6 });
}, { layouts: LAYOUTS });
