/**
 * Steps on a scratch copy of the trained parameters: save, move along the gradient, come back.
 * @module
 */
import { type Graph, recordGraph } from "../../engine/graph.ts";
import { axpby } from "../../engine/ops/axpby.ts";
import type { Parameters, ParameterSnapshot } from "../../engine/parameters.ts";

/** Moves of parameters, each recorded once. Dispose when done. */
export interface InnerSteps extends Disposable {
  /** Where {@link InnerSteps.restore} comes back to; other solvers' parts may read it. */
  readonly start: ParameterSnapshot;
  /** Keeps the values. */
  save(): void;
  /** Sets the values to those kept, exactly. */
  restore(): void;
  /** theta <- theta - learning rate times the gradient. */
  descend(): void;
}

/**
 * Prepares them, with one copy of the parameters.
 *
 * @param parameters trainable, in f32
 * @param options.learningRate of a step of gradient descent
 * @throws {TypeError} in f16, whose steps would have to move two copies of the weights
 */
export function createInnerSteps(
  parameters: Parameters,
  { learningRate }: { learningRate: number },
): InnerSteps {
  if (parameters.blocks.some(({ copy }) => copy !== undefined)) {
    throw new TypeError("Cannot take inner steps: expected parameters in f32, found f16");
  }
  const { gpu, blocks } = parameters;
  const start = parameters.snapshot();
  const graphs: Graph[] = [];
  const record = (body: () => void) => {
    const graph = recordGraph(gpu, body);
    graphs.push(graph);
    return () => graph.replay();
  };
  return {
    start,
    save: record(() => parameters.save(start)),
    restore: record(() => parameters.restore(start)),
    descend: record(() => {
      for (const { gradient, weight } of blocks) axpby(gradient!, weight, { a: -learningRate });
    }),
    [Symbol.dispose]() {
      for (const graph of graphs) graph[Symbol.dispose]();
      start[Symbol.dispose]();
    },
  };
}
