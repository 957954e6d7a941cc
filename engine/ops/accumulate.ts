/**
 * In-place addition: how gradients of a tensor with several readers meet.
 * @module
 */
import { accumulate } from "../../shaders/elementwise.ts";
import { expectShape, ShapeError, sizeOf } from "../shape.ts";
import { storageOf, type Tensor } from "../tensor.ts";
import { elementwiseWorkgroups } from "./dispatch.ts";

/**
 * target += source, element by element.
 *
 * @throws {ShapeError} when shapes or storages differ
 */
export function accumulateInto(target: Tensor, source: Tensor): void {
  expectShape("accumulate", "source", source.shape, target.shape);
  const storage = storageOf(target);
  if (source.type !== storage) {
    throw new ShapeError(`Cannot run accumulate: expected source of type ${storage}, found ${source.type}`);
  }
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(target.shape));
  target.gpu.dispatch(accumulate, {
    constants: { storage },
    bindings: { part: source.range, total: target.range },
    params: { elements },
    workgroups,
  });
}
