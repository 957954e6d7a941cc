/**
 * The product with (I - alpha H), H the lower level's Hessian, that turns a gradient after an inner step into one before
 * it: H v by central differences of gradients along v.
 * @module
 */
import { type Graph, recordGraph } from "../../engine/graph.ts";
import { axpby } from "../../engine/ops/axpby.ts";
import { CLIP_STATE, gradNorm } from "../../engine/ops/adamw.ts";
import type { Parameters } from "../../engine/parameters.ts";
import { emptyLike, fromHost, release } from "../../engine/tensor.ts";
import type { InnerSteps } from "./inner_steps.ts";

/** How the Hessian's product is taken. */
export interface HypergradientOptions {
  /** alpha, the inner step's learning rate. */
  readonly learningRate: number;
  /** How far the parameters are moved to each side along v, as a vector's length. */
  readonly epsilon: number;
  /** Where the parameters come back to. */
  readonly inner: Pick<InnerSteps, "start" | "restore">;
  /** Encodes passes that add `sign` times the gradient of G at the parameters as they are. */
  readonly lowerGradient: (sign: 1 | -1) => void;
}

/** Multiplies gradients. Dispose when done. */
export interface Hypergradient extends Disposable {
  /**
   * Overwrites the gradients v by v - alpha (grad G(theta + r v) - grad G(theta - r v)) / (2 r), r = epsilon / |v|, with
   * theta as it was saved, to which the parameters come back. A v of zero stays zero.
   */
  apply(): void;
}

/**
 * Prepares the product, with one copy of the gradients.
 *
 * @param parameters trainable, in f32
 * @param options alpha, epsilon, and the passes of G
 */
export function createHypergradient(parameters: Parameters, options: HypergradientOptions): Hypergradient {
  const { gpu } = parameters;
  const { learningRate, epsilon, inner, lowerGradient } = options;
  const blocks = parameters.blocks.map(({ weight, gradient }) => ({
    ...{ weight, gradient: gradient! },
    direction: emptyLike(weight, weight.shape, {
      owner: "caller",
      label: "direction",
      category: "gradients",
    }),
  }));
  const state = fromHost(gpu, new Float32Array(CLIP_STATE.size), { shape: [CLIP_STATE.size] });
  const unread = fromHost(gpu, new Float32Array(1), { shape: [1] });
  const shift = (sign: 1 | -1) => {
    parameters.restore(inner.start);
    for (const { weight, direction } of blocks) {
      axpby(direction, weight, { a: sign * epsilon, norm: { state, power: -1 } });
    }
  };
  const graphs: Graph[] = [];
  const record = (body: () => void) => {
    const graph = recordGraph(gpu, body);
    graphs.push(graph);
    return () => graph.replay();
  };
  const forward = record(() => {
    const gradients = blocks.map(({ gradient }) => gradient);
    gradNorm(gradients, state, { maxNorm: 0, metric: { metrics: unread, index: 0, accumulate: false } });
    for (const { gradient, direction } of blocks) gpu.queue.copy(gradient.range, direction.range);
    shift(1);
    parameters.zeroGradients();
  });
  const back = record(() => shift(-1));
  const combine = record(() => {
    parameters.restore(inner.start);
    for (const { gradient, direction } of blocks) {
      // The gradients hold grad G(theta + r v) - grad G(theta - r v).
      axpby(gradient, direction, { a: -learningRate / (2 * epsilon), norm: { state, power: 1 } });
      gpu.queue.copy(direction.range, gradient.range);
    }
  });
  return {
    apply() {
      forward();
      lowerGradient(1);
      back();
      lowerGradient(-1);
      combine();
    },
    [Symbol.dispose]() {
      for (const graph of graphs) graph[Symbol.dispose]();
      for (const { direction } of blocks) release(direction);
      release(state);
      release(unread);
    },
  };
}
