/**
 * Parameters as part of a run's state.
 * @module
 */
import { mix } from "../../engine/ops/mix.ts";
import type { Parameters } from "../../engine/parameters.ts";
import type { StatePart } from "./run_state.ts";

/**
 * The exact values of parameters that a run changes; f16 copies are made anew by the kernels that the run itself makes
 * them with.
 *
 * @param parameters trained, or a moving copy of trained ones
 * @param options.scratch parameters of the same layout whose gradients may be overwritten; by default the same
 * @returns tensors `block0` and so on, one for each block
 */
export function parameterState(
  parameters: Parameters,
  { scratch = parameters }: { scratch?: Parameters } = {},
): StatePart {
  const { gpu, blocks } = parameters;
  return {
    tensors: blocks.map(({ weight }, index) => ({ name: `block${index}`, tensor: weight })),
    numbers: () => ({}),
    restore() {
      for (const [index, { weight, copy }] of blocks.entries()) {
        if (!copy) continue;
        // Mixed with itself a value keeps its bits, a zero its sign. A step clears gradients before it adds to them.
        const same = scratch.blocks[index].gradient!;
        gpu.queue.copy(weight.range, same.range);
        mix(weight, same, { alpha: 1, copy });
      }
    },
  };
}
