/**
 * Draws docs/training_step.svg: `deno run -R -W tests/docs/training_step.ts`. A test holds the file to it.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** The picture in docs/architecture.md. */
export const PICTURE = fileURLToPath(new URL("../../docs/training_step.svg", import.meta.url));

const [WIDTH, HEIGHT] = [1000, 640];
const STYLE = `text { font: 13px system-ui, sans-serif; fill: #1c2128 } .title { font-weight: 600 }
.lane { fill: #f6f8fa } .lane-name { font-weight: 600; fill: #57606a }
.host { fill: #ddf4ff; stroke: #54aeff } .record { fill: #fff8c5; stroke: #d4a72c }
.gpu { fill: #dafbe1; stroke: #4ac26b } .spo { fill: #fbefff; stroke: #c297ff }
path { fill: none; stroke: #57606a; stroke-width: 1.5; marker-end: url(#head) } .label { fill: #57606a }`;

/** Colours of boxes: on the host, while recording, on the GPU, a level of SPO. */
type Kind = "host" | "record" | "gpu" | "spo";

/** A box: a title, and lines below it. */
interface Box {
  readonly at: readonly [x: number, y: number, width: number, height: number];
  readonly kind: Kind;
  readonly lines: readonly string[];
}

const LANES: readonly [y: number, height: number, name: string][] = [
  [10, 120, "each micro-batch"],
  [140, 170, "once a shape"],
  [320, 180, "each step: one encoder"],
  [510, 120, "every logEvery steps"],
];

const BOXES: readonly Box[] = [
  {
    at: [150, 36, 190, 76],
    kind: "host",
    lines: ["plan of the run", "every step's items, by the", "seed, before the first step"],
  },
  {
    at: [380, 36, 190, 76],
    kind: "host",
    lines: ["pack", "ids, labels, offsets; a pair", "shares its prompt"],
  },
  { at: [610, 36, 190, 76], kind: "host", lines: ["inputs", "written into the same", "buffers every time"] },
  {
    at: [150, 166, 190, 126],
    kind: "record",
    lines: [
      "forward: ops",
      "embedding, layers, norm",
      "token_logps: head and",
      "log-prob, no logits",
      "pair_loss",
    ],
  },
  {
    at: [380, 166, 190, 126],
    kind: "record",
    lines: [
      "tape",
      "a node per op, with its",
      "backward; walked from the",
      "end; gives activations",
      "back as it goes",
    ],
  },
  { at: [610, 166, 190, 56], kind: "record", lines: ["arena", "buffers shared by lifetime"] },
  { at: [610, 236, 190, 56], kind: "record", lines: ["graph", "dispatches and bind groups"] },
  { at: [150, 346, 80, 136], kind: "gpu", lines: ["zero", "gradients"] },
  { at: [246, 346, 226, 62], kind: "spo", lines: ["upper level: F", "replay on pairs"] },
  {
    at: [246, 420, 226, 62],
    kind: "spo",
    lines: ["lower level: λ φ(G − v*)", "in pair_loss, or a replay of its own"],
  },
  {
    at: [488, 346, 130, 136],
    kind: "gpu",
    lines: ["gradients", "added in place,", "of what is trained", "alone"],
  },
  {
    at: [634, 346, 100, 136],
    kind: "gpu",
    lines: ["update", "global norm,", "finite check,", "clip, AdamW"],
  },
  {
    at: [750, 346, 104, 136],
    kind: "host",
    lines: ["submit", "one; more for", "more than one", "micro-batch"],
  },
  {
    at: [874, 346, 106, 136],
    kind: "gpu",
    lines: ["GPU", "runs it while", "the host plans", "the next step"],
  },
  { at: [874, 536, 106, 76], kind: "gpu", lines: ["metrics ring", "a row a step,", "on the GPU"] },
  {
    at: [610, 536, 190, 76],
    kind: "host",
    lines: ["readback", "one await: losses, norms;", "faults are seen here"],
  },
  { at: [380, 536, 190, 76], kind: "host", lines: ["log", "metrics.jsonl, TensorBoard,", "the dashboard"] },
  {
    at: [150, 536, 190, 76],
    kind: "host",
    lines: ["checkpoint, when due", "weights, moments, SPO's", "state: whole or not there"],
  },
];

const ARROWS: readonly (readonly [path: string, label?: string, x?: number, y?: number])[] = [
  ["M340 74H376"],
  ["M570 74H606"],
  ["M705 112V135H245V162", "first time a shape comes: record", 380, 131],
  ["M800 74H840V264H804", "known shape", 850, 170],
  ["M340 229H376"],
  ["M570 194H606"],
  ["M570 264H606"],
  ["M705 292V314H359V342", "replay", 520, 310],
  ["M230 377H242"],
  ["M472 377H484"],
  ["M472 451H484"],
  ["M618 414H630"],
  ["M734 414H746"],
  ["M854 414H870"],
  ["M927 482V532"],
  ["M874 574H804"],
  ["M610 574H574"],
  ["M380 574H344"],
];

/** The picture as a file. */
export function trainingStepSvg(): string {
  const lanes = LANES.map(([y, height, name]) =>
    `<rect class="lane" x="10" y="${y}" width="980" height="${height}" rx="6"/>` +
    `<text class="lane-name" x="22" y="${y + 20}">${name}</text>`
  );
  const arrows = ARROWS.flatMap(([path, label, x, y]) => [
    `<path d="${path}"/>`,
    ...(label ? [`<text class="label" x="${x}" y="${y}">${label}</text>`] : []),
  ]);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">`,
    "<title>The life of one training step</title>",
    `<style>${STYLE}</style>`,
    `<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">` +
    `<polygon points="0,0 8,4 0,8" fill="#57606a"/></marker></defs>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    ...lanes,
    ...BOXES.map(drawBox),
    ...arrows,
    "</svg>\n",
  ].join("\n");
}

function drawBox({ at: [x, y, width, height], kind, lines }: Box): string {
  const texts = lines.map((line, index) =>
    `<text${index === 0 ? ' class="title"' : ""} x="${x + 8}" y="${y + 20 + 19 * index}">${line}</text>`
  );
  return `<rect class="${kind}" x="${x}" y="${y}" width="${width}" height="${height}" rx="4"/>` +
    texts.join("");
}

if (import.meta.main) Deno.writeTextFileSync(PICTURE, trainingStepSvg());
