/**
 * A reference that is run beside the policy in every step, instead of its log-probs being computed once.
 * @module
 */
import { mix } from "../engine/ops/mix.ts";
import type { Parameters } from "../engine/parameters.ts";
import type { SequenceTails } from "../engine/ops/sequence_logps.ts";
import { noGrad } from "../engine/tape.ts";
import { scope, type Tensor } from "../engine/tensor.ts";
import { withAdapterOff } from "./adapters/lora.ts";
import { parameterState } from "./checkpoints/parameter_state.ts";
import type { StatePart } from "./checkpoints/run_state.ts";
import { type SequenceSums, sequenceSums } from "./losses/length_desensitization.ts";
import type { BatchTensors } from "./models/batch_tensors.ts";
import { batchSequenceLogps, batchTokenLogps, type Model } from "./models/model.ts";

/** A reference on the GPU. Dispose it when done; the policy stays. */
export interface LiveReference extends Disposable {
  /** It; never trained. */
  readonly model: Model;
  /** Moves it towards the policy where this step's turn it is; called after the optimizer's step. */
  afterStep?(step: number): void;
  /** Its weights, where they move; where they stay, the run's start gives them again. */
  state?(): StatePart;
}

/** TR-DPO's soft update (arXiv 2404.09656): after every so many steps reference = alpha policy + (1 - alpha) reference. */
export interface ReferenceSync {
  /** Share of the policy, above 0 and at most 1. */
  readonly alpha: number;
  /** Steps between two updates. */
  readonly steps: number;
}

/** Which reference. */
export interface LiveReferenceOptions {
  /** Of a policy with an adapter: its base, or policy and adapter as they are now. `start` by default. */
  readonly reference?: "base" | "start";
  /** How it follows the policy; not at all by default. Not with an adapter. */
  readonly sync?: ReferenceSync;
}

/**
 * The policy as it is now, or the base of its adapter, as a frozen model. A base takes no memory: it is the policy's own
 * weights without the adapter. Everything else is a copy of what is trained: of all parameters, or of the adapter's.
 *
 * @param policy the model that will be trained
 * @param options which reference, where the policy has an adapter
 * @returns the reference; dispose it when done
 * @throws {MemoryBudgetError} when a copy does not fit the budget
 * @throws {RangeError} when a reference of a policy with an adapter is to follow it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true });
 * using reference = liveReference(model);
 * model.parameters.write("model.norm.weight", new Float32Array(8).fill(3));
 * assert.deepEqual([...await reference.model.parameters.read("model.norm.weight")], Array(8).fill(0)); // as it was
 * ```
 */
export function liveReference(policy: Model, options: LiveReferenceOptions = {}): LiveReference {
  const { adapter } = policy;
  const { sync } = options;
  if (adapter && sync) {
    throw new RangeError("Cannot move a reference: expected a policy without an adapter, found one with it");
  }
  if (adapter && options.reference === "base") {
    return { model: withAdapterOff(policy, (base) => base), [Symbol.dispose]() {} };
  }
  const copy = policy.trained.frozenCopy();
  const afterStep = sync && ((step: number) => {
    if (step % sync.steps === 0) moveTowards(copy, policy.trained, sync.alpha);
  });
  return {
    model: withTrained(policy, copy),
    ...(afterStep ? { afterStep, state: () => parameterState(copy, { scratch: policy.trained }) } : {}),
    [Symbol.dispose]: () => copy[Symbol.dispose](),
  };
}

function moveTowards(reference: Parameters, policy: Parameters, alpha: number): void {
  reference.blocks.forEach(({ weight, copy }, index) =>
    mix(policy.blocks[index].weight, weight, { alpha, copy })
  );
}

/** A model whose trained parameters are others. */
function withTrained(model: Model, trained: Parameters): Model {
  const { adapter } = model;
  return {
    ...model,
    trained,
    ...(adapter ? { adapter: { ...adapter, parameters: trained } } : { parameters: trained }),
  };
}

/**
 * Summed log-probs without gradient, whose activations are given back at once.
 *
 * @param model a reference, or the policy
 * @param batch S packed sequences
 * @returns `[S]`, in nats
 */
export function detachedSequenceLogps(model: Model, batch: BatchTensors): Tensor {
  return noGrad(model.gpu, () => scope(model.gpu, () => batchSequenceLogps(model, batch)));
}

/**
 * {@link sequenceSums} without gradient, whose activations are given back at once.
 *
 * @param model a reference
 * @param batch S packed sequences
 * @param tails which of their tokens count less; none by default
 */
export function detachedSequenceSums(
  model: Model,
  batch: BatchTensors,
  tails?: SequenceTails,
): SequenceSums {
  // Without a tape first: a recording one owns what is made within a scope until its backward.
  const [plain, weighted] = noGrad(model.gpu, () =>
    scope(model.gpu, () => {
      const sums = sequenceSums(batchTokenLogps(model, batch), batch, tails);
      return [sums.plain, sums.weighted];
    }));
  return { plain, weighted };
}
