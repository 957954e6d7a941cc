/**
 * In-place addition: how gradients of a tensor with several readers meet.
 * @module
 */
import { accumulate } from "../../shaders/elementwise.ts";
import { expectShape, sizeOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { activationStorage, elementwiseWorkgroups, inputMemory } from "./dispatch.ts";

/**
 * target += source, element by element, each stored in its own way.
 *
 * @throws {ShapeError} when the shapes differ
 */
export function accumulateInto(target: Tensor, source: Tensor): void {
  expectShape("accumulate", "source", source.shape, target.shape);
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(target.shape));
  target.gpu.dispatch(accumulate, {
    constants: {
      storage: activationStorage("accumulate", source),
      total: activationStorage("accumulate", target),
      memory: inputMemory(target.gpu),
    },
    bindings: { part: source.range, total: target.range },
    params: { elements },
    workgroups,
  });
}
