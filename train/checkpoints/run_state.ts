/**
 * What a run is made of, so far as its later steps depend on it.
 * @module
 */
import type { Tensor } from "../../engine/tensor.ts";

/** A tensor of a state, by a name that is unique over the run. */
export interface NamedTensor {
  /** Such as `optimizer/model.norm.weight/moment1`. */
  readonly name: string;
  /** Read when a checkpoint is written, overwritten when it is read. */
  readonly tensor: Tensor;
}

/** A part of a run that later steps depend on: the model's trained parameters, the optimizer, SPO's state. */
export interface StatePart {
  /** What is on the GPU. Copies in another type are remade, not stored. */
  readonly tensors: readonly NamedTensor[];
  /** What is on the host: finite numbers under the same keys at all times, read at the time of saving. */
  numbers(): Readonly<Record<string, number>>;
  /**
   * Sets the numbers, and remakes copies.
   *
   * @param numbers as `numbers` returned them; the tensors have been written before
   */
  restore(numbers: Readonly<Record<string, number>>): void;
}

/** A run after a step. */
export interface RunState {
  /** Steps done. */
  readonly step: number;
  /** By a name that is unique over the run: `model`, `optimizer`, `objective`, `solver`, `trainer`. */
  readonly parts: Readonly<Record<string, StatePart>>;
  /** Bytes of metrics.jsonl that belong to steps up to this one. */
  readonly metricsBytes: number;
}

/**
 * Parts of a run, the names of whose tensors are behind their own: they are unique over the run.
 *
 * @param parts by name
 */
export function namedParts(parts: RunState["parts"]): RunState["parts"] {
  return Object.fromEntries(
    Object.entries(parts).map(([part, state]) => [part, { ...state, tensors: underName(part, state) }]),
  );
}

function underName(part: string, { tensors }: StatePart): NamedTensor[] {
  return tensors.map(({ name, tensor }) => ({ name: `${part}/${name}`, tensor }));
}

/** Of what carries nothing over from step to step. */
export const NO_STATE: StatePart = { tensors: [], numbers: () => ({}), restore() {} };

/**
 * Several parts as one, their names behind those of the parts: `optimizer/steps`.
 *
 * @param parts by name; those that are undefined are left out
 */
export function joinStates(parts: Readonly<Record<string, StatePart | undefined>>): StatePart {
  const given = Object.entries(parts).flatMap(([name, part]) => part ? [[name, part] as const] : []);
  const under = (name: string, of: Readonly<Record<string, number>>) =>
    Object.entries(of).map(([key, value]) => [`${name}/${key}`, value]);
  return {
    tensors: given.flatMap(([name, part]) => underName(name, part)),
    numbers: () => Object.fromEntries(given.flatMap(([name, part]) => under(name, part.numbers()))),
    restore(numbers) {
      for (const [name, part] of given) {
        const own = Object.entries(numbers).filter(([key]) => key.startsWith(`${name}/`));
        part.restore(Object.fromEntries(own.map(([key, value]) => [key.slice(name.length + 1), value])));
      }
    },
  };
}
