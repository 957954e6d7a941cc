/**
 * The diagnosis of a step whose loss or gradient is not finite: its passes run again with checks on.
 * @module
 */
import type { BufferRange } from "../../engine/commands.ts";
import { findNonFinite, type NonFiniteTensor } from "../../engine/finite_checks.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { MicroBatches } from "../micro_batches.ts";
import type { Model } from "../models/model.ts";

/** A parameter, or its gradient, and where it lies. */
interface NamedRange {
  readonly name: string;
  readonly isGradient: boolean;
  readonly tensor: Tensor;
}

/**
 * Runs a step's forward and backward passes again and says which tensor is the first, in the order of execution, that is
 * not finite. The update of a gradient that is not finite was left out, so the parameters are those of the step, but for
 * the updates of good steps after it, up to the readback.
 *
 * @param model what is trained; its gradients are written
 * @param batches the run's passes
 * @param at the step, from 1, and a row of the metrics that may be overwritten
 * @returns a part of a sentence, such as "the first tensor that is not finite is the parameter lm_head.weight"
 */
export async function diagnoseStep(
  model: Model,
  batches: MicroBatches,
  at: { step: number; metricsRow: number },
): Promise<string> {
  const ranges = namedRanges(model);
  const found = await findNonFinite(model.gpu, () => {
    model.trained.zeroGradients();
    batches.run(at.step, at.metricsRow);
  }, {
    storageOf(range) {
      const type = nameOf(range, ranges)?.tensor.type;
      return type === "f16" || type === "bf16" ? type : undefined;
    },
  });
  if (!found) {
    return "run again, every tensor of the step is finite: a sum of the gradient norm or of the metrics overflows, or later updates changed the parameters";
  }
  return `the first tensor that is not finite is ${describe(found, ranges)}`;
}

function describe(found: NonFiniteTensor, ranges: readonly NamedRange[]): string {
  const { kernel, binding, isWritten, count } = found;
  const named = nameOf(found.range, ranges);
  const numbers = `${count} ${count === 1 ? "number" : "numbers"}`;
  if (named && !isWritten) return `the parameter ${named.name} (${numbers}), read by ${kernel}`;
  if (named) {
    return `the ${
      named.isGradient ? "gradient of" : "parameter"
    } ${named.name} (${numbers}), written by ${kernel}`;
  }
  const with_ = found.ranges.map((range) => nameOf(range, ranges)?.name).filter((name) => name !== undefined);
  const place = with_.length > 0 ? ` with ${[...new Set(with_)].join(" and ")}` : "";
  return `${isWritten ? "the result" : "the operand"} ${binding} of ${kernel}${place} (${numbers})`;
}

/** Parameters that kernels read as one are named together. */
function namedRanges({ parameters, trained }: Model): NamedRange[] {
  return [...new Set([parameters, trained])].flatMap((of) =>
    [...of.shapes.keys()].flatMap((name) =>
      of.shards(name).flatMap((tensor): NamedRange[] => [
        { name, isGradient: false, tensor },
        ...(tensor.grad ? [{ name, isGradient: true, tensor: tensor.grad }] : []),
      ])
    )
  );
}

function nameOf(range: BufferRange, ranges: readonly NamedRange[]): NamedRange | undefined {
  const inside = ranges.filter(({ tensor: { range: own } }) =>
    own.allocation === range.allocation && own.offsetBytes >= range.offsetBytes &&
    own.offsetBytes < range.offsetBytes + range.sizeBytes
  );
  return inside.length < 2 ? inside[0] : { ...inside[0], name: inside.map(({ name }) => name).join(" and ") };
}
