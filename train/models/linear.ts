/**
 * The linear layers of a model by name: what shares an input is one product, biases and residuals are part of it.
 * @module
 */
import { loraLinear } from "../../engine/ops/lora_linear.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { swiglu } from "../../engine/ops/swiglu.ts";
import { swigluLinear } from "../../engine/ops/swiglu_linear.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { loraFactors } from "../adapters/lora.ts";
import type { Model } from "./model.ts";

/**
 * y = x W^T + b, side by side for every module named, with what the model's adapter adds.
 *
 * @param model the model
 * @param x `[N, in]`
 * @param modules names without `.weight`; several must have been laid out as a group
 * @param options.residual `[N, out]`: added
 * @returns `[N, sum of out]`
 */
export function linear(
  model: Model,
  x: Tensor,
  modules: readonly string[],
  options: { residual?: Tensor } = {},
): Tensor {
  const weight = joined(model, modules, "weight");
  const bias = hasBias(model, modules) ? joined(model, modules, "bias") : undefined;
  const kind = model.architecture.weightLayout === "out_in" ? "NT" : "NN";
  const factors = loraFactors(model, modules);
  const added = { kind, bias, residual: options.residual } as const;
  return factors ? loraLinear(x, weight, { ...added, ...factors }) : matmul(x, weight, added);
}

/**
 * silu(x Wg^T + bg) * (x Wu^T + bu): the gated half of an MLP (SwiGLU, arXiv 2002.05202). One kernel where there is neither
 * a bias nor an adapter.
 *
 * @param model the model
 * @param x `[N, in]`
 * @param modules the gate's name, then up's, laid out as a group; or the name of one matrix that holds both
 * @returns `[N, out]`
 */
export function gatedLinear(model: Model, x: Tensor, modules: readonly string[]): Tensor {
  const isPlain = !hasBias(model, modules) && !loraFactors(model, modules);
  return isPlain ? swigluLinear(x, joined(model, modules, "weight")) : swiglu(linear(model, x, modules));
}

function hasBias({ parameters }: Model, [first]: readonly string[]): boolean {
  return parameters.shapes.has(`${first}.bias`);
}

function joined({ parameters }: Model, modules: readonly string[], part: "weight" | "bias"): Tensor {
  const names = modules.map((name) => `${name}.${part}`);
  return names.length === 1 ? parameters.get(names[0]) : parameters.joined(names);
}
