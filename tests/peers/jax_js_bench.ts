/**
 * Keel beside jax-js (npm:@jax-js/jax, its WebGPU and its WebAssembly backend) in the same process on the same machine, a
 * sample of one after a sample of the other, so that a busy machine slows all alike. Not part of the tests; fetches the
 * peer:
 *
 *     deno run --no-lock -A tests/peers/jax_js_bench.ts [--markdown] [--samples 3] [--steps 5] [--no-training]
 *
 * The peer's training step is the same Llama on the same number of tokens, jitted whole: forward, backward, AdamW. Its
 * WebGPU backend runs on the adapter that Keel runs on, its WebAssembly one on the CPU. `--samples 1 --steps 1` takes
 * the least time.
 * @module
 */
import process from "node:process";
import { parseArgs } from "node:util";
import type { Gpu } from "../../engine/gpu.ts";
import { openGpu } from "../../engine/gpu.ts";
import { readConditions } from "../../train/bench/conditions.ts";
import { formatNumber } from "../../train/bench/format.ts";
import { benchMatmul, checkProduct } from "../../train/bench/matmul.ts";
import { summarize } from "../../train/bench/measure.ts";
import { countParameters } from "../../train/bench/shapes.ts";
import { TRAINING_SHAPES } from "../../train/bench/training_shapes.ts";
import { benchTraining } from "../../train/bench/training.ts";
import { formatMarkdownTable, formatTable } from "../../train/table.ts";
import { createRandom, fillNormal, uniformInt } from "../../train/random.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { architectureOf } from "../../train/models/registry.ts";
import { ensureAdapter } from "../../train/software_driver.ts";

const PEER = "npm:@jax-js/jax@0.1.25";

// The specifier is no literal, and the types are ours: the project checks and locks nothing of the peer's.
// deno-lint-ignore no-explicit-any -- a stand-in for a package that may be absent
type Jax = any;
/** An array of the peer's. A function takes ownership of what it is given; `.ref` keeps it. */
// deno-lint-ignore no-explicit-any -- a stand-in for a package that may be absent
type PeerArray = any;
type Tree = Record<string, PeerArray>;

const SHAPE = TRAINING_SHAPES.bench;
const HEAD_DIM = SHAPE.hidden / SHAPE.heads;
const ADAM = { rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8 };
const NORM_EPS = 1e-6;
/** The peer's backends that are measured. */
const BACKENDS = ["webgpu", "wasm"] as const;

type Backend = typeof BACKENDS[number];

interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly keel: readonly number[];
  readonly peers: Readonly<Record<Backend, readonly number[]>>;
  /** True where the greater number is the better. */
  readonly isRate: boolean;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      markdown: { type: "boolean", default: false },
      samples: { type: "string", default: "3" },
      steps: { type: "string", default: "5" },
      "no-training": { type: "boolean", default: false },
    },
  });
  const [samples, steps] = [countOf(values, "samples"), countOf(values, "steps")];
  const log = (line: string) => process.stderr.write(`${line}\n`);
  await ensureAdapter({ log });
  using gpu = await openGpu();
  const jax = await import(PEER);
  const devices: string[] = await jax.init(...BACKENDS);
  const missing = BACKENDS.find((backend) => !devices.includes(backend));
  if (missing) {
    throw new Error(
      `Cannot compare: expected the peer's backend ${missing}, found ${devices.join(", ") || "none"}`,
    );
  }
  const conditions = readConditions(gpu);
  const comparisons: Comparison[] = [];
  for (const size of [256, 512, 1024]) {
    log(`matmul ${size}`);
    comparisons.push(await compareMatmul(gpu, jax, { size, samples }));
  }
  if (!values["no-training"]) {
    log("training step (the peer compiles for a while)");
    comparisons.push(await compareTraining(gpu, jax, { samples, steps }));
  }
  const table = values.markdown ? formatMarkdownTable : formatTable;
  const headers = ["measurement", "Keel", "min to max"].concat(
    BACKENDS.flatMap((backend) => [`jax-js ${backend}`, "min to max", "ratio"]),
  );
  process.stdout.write(
    `${conditions.adapter}, Deno ${conditions.deno}, ${PEER}, ${conditions.cpu}, ${conditions.cores} cores, ` +
      `load average ${conditions.load.toFixed(2)} at the start, ${conditions.date}, samples: ${samples}\n` +
      `Model: Keel's ${countParameters(SHAPE).toLocaleString("en-US")} parameters in all, ` +
      `${SHAPE.batch} sequences of ${SHAPE.tokens} tokens; steps between two waits: ${steps}\n` +
      `The step: forward, backward, AdamW; Keel's clips the gradient and checks it, too\n\n` +
      table(headers, comparisons.map(row)),
  );
}

function countOf(values: Readonly<Record<string, unknown>>, name: string): number {
  const count = Number(values[name]);
  if (Number.isInteger(count) && count > 0) return count;
  throw new RangeError(`Cannot use --${name}: expected a positive integer, found ${values[name]}`);
}

function row({ name, unit, keel, peers, isRate }: Comparison): string[] {
  const ours = summarize(keel);
  const range = ({ min, max }: { min: number; max: number }) =>
    `${formatNumber(min)} to ${formatNumber(max)}`;
  const peerCells = BACKENDS.flatMap((backend) => {
    const theirs = summarize(peers[backend]);
    const ratio = isRate ? ours.median / theirs.median : theirs.median / ours.median;
    return [formatNumber(theirs.median), range(theirs), `${formatNumber(ratio)}x`];
  });
  return [`${name}, ${unit}`, formatNumber(ours.median), range(ours), ...peerCells];
}

/** NN, the peer's own layout; each of its samples as many products as take a quarter of a second, one wait. */
async function compareMatmul(
  gpu: Gpu,
  jax: Jax,
  { size, samples }: { size: number; samples: number },
): Promise<Comparison> {
  const runs = { webgpu: await peerMatmul(jax, "webgpu", size), wasm: await peerMatmul(jax, "wasm", size) };
  const keel: number[] = [];
  const peers: Record<Backend, number[]> = { webgpu: [], wasm: [] };
  for (let sample = 0; sample < samples; sample++) {
    const [ours] = await benchMatmul(gpu, [{ kind: "NN", size }], { samples: 1, sampleMs: 250 });
    keel.push(ours.gflops.median);
    for (const backend of BACKENDS) peers[backend].push(await runs[backend].rate());
  }
  for (const backend of BACKENDS) runs[backend].dispose();
  return { name: `matmul NN ${size}`, unit: "GFLOP/s", keel, peers, isRate: true };
}

/** A checked product on one of the peer's backends; `rate` takes a sample. */
async function peerMatmul(
  jax: Jax,
  backend: Backend,
  size: number,
): Promise<{ rate: () => Promise<number>; dispose: () => void }> {
  const { numpy: np } = jax;
  jax.defaultDevice(backend);
  const random = createRandom(size);
  const values = () => fillNormal(random, { target: new Float32Array(size * size) });
  const [hostA, hostB] = [values(), values()];
  const [a, b] = [hostA, hostB].map((host) => np.array(host).reshape([size, size]));
  const run = async (count: number) => {
    jax.defaultDevice(backend);
    const start = performance.now();
    const results = Array.from({ length: count }, () => np.matmul(a.ref, b.ref));
    await jax.blockUntilReady(results);
    const elapsedMs = performance.now() - start;
    for (const result of results) result.dispose();
    return elapsedMs;
  };
  checkProduct({ kind: "NN", size, a: hostA, b: hostB, c: await np.matmul(a.ref, b.ref).data() });
  let count = 1;
  while (await run(count) < 250 && count < 256) count *= 2;
  return {
    rate: async () => 2 * size ** 3 * count / await run(count) / 1e6,
    dispose() {
      a.dispose();
      b.dispose();
    },
  };
}

async function compareTraining(
  gpu: Gpu,
  jax: Jax,
  { samples, steps }: { samples: number; steps: number },
): Promise<Comparison> {
  const runs = { webgpu: peerTraining(jax, "webgpu"), wasm: peerTraining(jax, "wasm") };
  const losses: Record<Backend, number[]> = { webgpu: [], wasm: [] };
  // The first run compiles; its loss tells whether the peer's model is the one that is meant.
  for (const backend of BACKENDS) {
    const { loss } = await runs[backend](1);
    if (Math.abs(loss - Math.log(SHAPE.vocabulary)) > 0.2) {
      throw new Error(
        `Cannot compare: expected ${backend}'s first loss near ${Math.log(SHAPE.vocabulary)}, found ${loss}`,
      );
    }
    losses[backend].push(loss);
  }
  const keel: number[] = [];
  const peers: Record<Backend, number[]> = { webgpu: [], wasm: [] };
  for (let sample = 0; sample < samples; sample++) {
    const ours = await benchTraining(gpu, "sft", { shape: SHAPE, samples: 1, stepsPerSample: steps });
    keel.push(ours.stepMs.median);
    for (const backend of BACKENDS) {
      const theirs = await runs[backend](steps);
      peers[backend].push(theirs.ms);
      losses[backend].push(theirs.loss);
    }
  }
  // The same batch every step: a step that really updates the weights lowers its loss.
  for (const backend of BACKENDS) {
    const found = losses[backend];
    if (found.some((loss, index) => index > 0 && !(loss < found[index - 1]))) {
      throw new Error(`Cannot compare: expected ${backend}'s loss to fall, found ${found.join(", ")}`);
    }
  }
  return { name: "training step", unit: "ms", keel, peers, isRate: false };
}

/** The same model in the peer's terms; returns what runs so many steps and waits. */
function peerTraining(jax: Jax, backend: Backend): (steps: number) => Promise<{ ms: number; loss: number }> {
  const { numpy: np } = jax;
  jax.defaultDevice(backend);
  const random = createRandom(1);
  const config = parseModelConfig({
    model_type: "llama",
    vocab_size: SHAPE.vocabulary,
    hidden_size: SHAPE.hidden,
    intermediate_size: SHAPE.mlp,
    num_hidden_layers: SHAPE.layers,
    num_attention_heads: SHAPE.heads,
  }, { file: "the peer's model" });
  const state: { weights: Tree; moment1: Tree; moment2: Tree } = { weights: {}, moment1: {}, moment2: {} };
  for (const [name, shape] of architectureOf(config).shapes) {
    const target = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
    const values = shape.length === 1 ? target.fill(1) : fillNormal(random, { target, std: 0.02 });
    state.weights[name] = np.array(values).reshape(shape);
    state.moment1[name] = np.zeros(shape);
    state.moment2[name] = np.zeros(shape);
  }
  const ids = Int32Array.from(
    { length: SHAPE.batch * (SHAPE.tokens + 1) },
    () => uniformInt(random, SHAPE.vocabulary),
  );
  const tokens = np.array(ids, { dtype: np.int32 }).reshape([SHAPE.batch, SHAPE.tokens + 1]);
  const step = jax.jit((...args: [Tree, Tree, Tree, PeerArray, PeerArray]) => adamwStep(jax, args));
  let count = 0;
  return async (steps) => {
    jax.defaultDevice(backend);
    const start = performance.now();
    let loss: PeerArray;
    for (let i = 0; i < steps; i++) {
      loss?.dispose();
      count++;
      const scale = np.array(
        new Float32Array([
          ADAM.rate * Math.sqrt(1 - ADAM.beta2 ** count) / (1 - ADAM.beta1 ** count),
        ]),
      );
      const result = step(state.weights, state.moment1, state.moment2, scale, tokens.ref);
      [state.weights, state.moment1, state.moment2, loss] = result;
    }
    await jax.blockUntilReady(state);
    const [value] = await loss.data();
    return { ms: (performance.now() - start) / steps, loss: value };
  };
}

function adamwStep(
  jax: Jax,
  [weights, moment1, moment2, scale, tokens]: [Tree, Tree, Tree, PeerArray, PeerArray],
): [Tree, Tree, Tree, PeerArray] {
  const { numpy: np, tree } = jax;
  const [loss, gradients]: [PeerArray, Tree] = jax.valueAndGrad((w: Tree, ids: PeerArray) =>
    meanLoss(jax, w, ids)
  )(tree.ref(weights), tokens);
  const next: [Tree, Tree, Tree] = [{}, {}, {}];
  for (const name of Object.keys(weights)) {
    const gradient = gradients[name];
    const m = moment1[name].mul(ADAM.beta1).add(gradient.ref.mul(1 - ADAM.beta1));
    const v = moment2[name].mul(ADAM.beta2).add(gradient.ref.mul(gradient).mul(1 - ADAM.beta2));
    next[0][name] = weights[name].sub(m.ref.mul(scale.ref).div(np.sqrt(v.ref).add(ADAM.eps)));
    next[1][name] = m;
    next[2][name] = v;
  }
  scale.dispose();
  return [...next, loss];
}

/** Mean cross entropy of the next token; embedding and picks as products with one-hot rows. */
function meanLoss(jax: Jax, weights: Tree, ids: PeerArray): PeerArray {
  const { numpy: np, nn } = jax;
  const { batch: B, tokens: T, hidden: C, vocabulary: V } = SHAPE;
  const [inputs, labels] = [ids.ref.slice([], [0, T]), ids.slice([], [1, T + 1])];
  const linear = (x: PeerArray, name: string) => np.matmul(x, np.transpose(weights[`${name}.weight`]));
  const norm = (x: PeerArray, name: string) => {
    const meanSquare = x.ref.mul(x.ref).mean(-1, { keepdims: true });
    return x.mul(np.reciprocal(np.sqrt(meanSquare.add(NORM_EPS)))).mul(weights[`${name}.weight`]);
  };
  let h = np.matmul(nn.oneHot(inputs, V).reshape([B * T, V]), weights["model.embed_tokens.weight"]);
  for (let layer = 0; layer < SHAPE.layers; layer++) {
    const at = (name: string) => `model.layers.${layer}.${name}`;
    const x = norm(h.ref, at("input_layernorm"));
    const heads = (y: PeerArray) => y.reshape([B, T, SHAPE.heads, HEAD_DIM]);
    const q = rotate(jax, heads(linear(x.ref, at("self_attn.q_proj"))));
    const k = rotate(jax, heads(linear(x.ref, at("self_attn.k_proj"))));
    const v = heads(linear(x, at("self_attn.v_proj")));
    const attended = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([B * T, C]);
    h = h.add(linear(attended, at("self_attn.o_proj")));
    const y = norm(h.ref, at("post_attention_layernorm"));
    const gate = nn.silu(linear(y.ref, at("mlp.gate_proj")));
    h = h.add(linear(gate.mul(linear(y, at("mlp.up_proj"))), at("mlp.down_proj")));
  }
  const logits = linear(norm(h, "model.norm"), "lm_head");
  const picks = nn.oneHot(labels, V).reshape([B * T, V]);
  return nn.logSoftmax(logits, -1).mul(picks).sum().mul(-1 / (B * T));
}

/** RoPE with halves, as Hugging Face's Llama. */
function rotate(jax: Jax, x: PeerArray): PeerArray {
  const { numpy: np } = jax;
  const half = HEAD_DIM / 2;
  const angle = (t: number, i: number) => t / 10000 ** (i / half);
  const table = (f: (x: number) => number) =>
    np.array(Float32Array.from(
      { length: SHAPE.tokens * half },
      (_, at) => f(angle(Math.floor(at / half), at % half)),
    )).reshape([1, SHAPE.tokens, 1, half]);
  const [cos, sin] = [table(Math.cos), table(Math.sin)];
  const [low, high] = [x.ref.slice([], [], [], [0, half]), x.slice([], [], [], [half, HEAD_DIM])];
  return np.concatenate([
    low.ref.mul(cos.ref).sub(high.ref.mul(sin.ref)),
    high.mul(cos).add(low.mul(sin)),
  ], 3);
}

await main();
// The peer's WebAssembly workers would keep the process alive.
process.exit();
