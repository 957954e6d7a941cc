/**
 * What the fused head finds out about each row's logits while it walks them, and what is made of it: TRL's metrics, and
 * the weights of WPO.
 * @module
 */
import { MASKED } from "./lib.ts";
import { type Tile, tileRows } from "./tile.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** Floats per row and chunk: A, B, the sum of the logits, and whether the label is the first of the largest. */
export const STATISTICS_PARTIAL_SIZE = 4;

/** In place of an id. */
const NO_ID = "0xffffffffu";

/** State of register row i beside the head's own top, sum and label logit: see {@link updateStatistics}. */
export function declareStatistics(i: number): string {
  return `
var slope${i} = 0.0;
var square${i} = 0.0;
var total${i} = 0.0;
var best${i} = ${NO_ID};`;
}

/**
 * Folds row i's freshly computed logits into its statistics, before the head's own state moves to `m_new`: with
 * d = top - m_new, A = sum of e^(z-m) (z-m) becomes e^d (A + d sum), B = sum of e^(2(z-m)) becomes e^(2d) B.
 */
export function updateStatistics(i: number, quads: number): string {
  return wgsl`{
let moved = top${i} - m_new;
let shrink = exp(moved);
var slope = vec4f();
var square = vec4f();
var total = vec4f();
var first = vec4u(${NO_ID});
${
    unroll(quads, (j) =>
      `{
let below = z${j} - m_new;
let share = select(vec4f(0.0), exp(below), inside${j});
slope += share * below;
square += share * share;
total += select(vec4f(0.0), z${j}, inside${j});
first = min(first, select(vec4u(${NO_ID}), id${j}, inside${j} & (z${j} == vec4f(m_new))));
}`)
  }
slope${i} = shrink * (slope${i} + moved * sum${i}) + ((slope.x + slope.y) + (slope.z + slope.w));
square${i} = shrink * shrink * square${i} + ((square.x + square.y) + (square.z + square.w));
total${i} += (total.x + total.y) + (total.z + total.w);
// Ids ascend: of equal logits the first was there before.
if (m_new > top${i}) { best${i} = min(min(first.x, first.y), min(first.z, first.w)); }
}`;
}

/**
 * Joins the lanes' statistics of a chunk, in the workgroup memory of the head's own sums (`lane_m` stays), and writes
 * them behind those. Lane x's id of its largest logit is counted from the chunk's first, so that f32 holds it.
 */
export function joinStatistics(
  tile: Tile,
  { cell, first }: { cell: (i: number) => string; first: number },
): string {
  const lanes = tile.lanesX * tile.lanesY;
  const size = first + STATISTICS_PARTIAL_SIZE;
  const owner = (body: string) => `
workgroupBarrier();
for (var r = local_id.y * ${tile.lanesX}u + local_id.x; r < ${tileRows(tile)}u; r += ${lanes}u) {
  let cells = r * ${tile.lanesX}u;
  let at = ((min(m0 + r, p.rows - 1u)) * p.chunks + p.first_chunk + workgroup_id.x) * ${size}u + ${first}u;
  ${body}
}
workgroupBarrier();`;
  return wgsl`
workgroupBarrier();
${
    unroll(tile.rows, (i) =>
      `{
let cell = ${cell(i)};
let cells = cell - local_id.x;
var m = ${MASKED};
for (var x = 0u; x < ${tile.lanesX}u; x++) { m = max(m, lane_m[cells + x]); }
let moved = top${i} - m;
let shrink = exp(moved);
lane_s[cell] = shrink * (slope${i} + moved * sum${i});
lane_t[cell] = shrink * shrink * square${i};
}`)
  }
${
    owner(`var slope = 0.0;
  var square = 0.0;
  for (var x = 0u; x < ${tile.lanesX}u; x++) { slope += lane_s[cells + x]; square += lane_t[cells + x]; }
  if (m0 + r < p.rows) { partial[at] = slope; partial[at + 1u] = square; }`)
  }
${
    unroll(tile.rows, (i) => `
lane_s[${cell(i)}] = total${i};
lane_t[${cell(i)}] = f32(best${i} - chunk_first);`)
  }
${
    owner(`var m = ${MASKED};
  for (var x = 0u; x < ${tile.lanesX}u; x++) { m = max(m, lane_m[cells + x]); }
  var total = 0.0;
  var best = 1e30;
  for (var x = 0u; x < ${tile.lanesX}u; x++) {
    total += lane_s[cells + x];
    if (lane_m[cells + x] == m) { best = min(best, lane_t[cells + x]); }
  }
  // In another chunk the difference wraps around to more than any chunk has.
  let label = labels[min(m0 + r, p.rows - 1u)] - p.first_id - chunk_first;
  if (m0 + r < p.rows) {
    partial[at + 2u] = total;
    partial[at + 3u] = select(0.0, 1.0, label < p.chunk && f32(label) == best);
  }`)
  }`;
}

/** State of a row while its chunks are joined. */
export const STATISTICS = `
var slope = 0.0;
var square = 0.0;
var total = 0.0;
var hit = 0.0;
var is_found = false;`;

/** Takes in one chunk, whose statistics begin `first` floats behind `at`. */
export function combineStatistics(first: number): string {
  return wgsl`
  let moved = partial[at] - m;
  let shrink = exp(moved);
  slope += shrink * (partial[at + ${first}u] + moved * partial[at + 1u]);
  square += shrink * shrink * partial[at + ${first + 1}u];
  total += partial[at + ${first + 2}u];
  // Chunks are in the order of their ids: of equal logits the first counts.
  if (partial[at] == m && !is_found) { hit = partial[at + ${first + 3}u]; is_found = true; }`;
}

/** Entropy = log s - A / s, mean logit, hit, log of the sum of p^2 = log B - 2 log s, s the sum of e^(z-m). */
export function writeStatistics(): string {
  return `
statistics[4u * r] = log_f32(s) - slope / s;
statistics[4u * r + 1u] = total / f32(p.vocab);
statistics[4u * r + 2u] = hit;
statistics[4u * r + 3u] = log_f32(square) - 2.0 * log_f32(s);`;
}
