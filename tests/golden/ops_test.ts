import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as adamw from "../reference/adamw.ts";
import * as add from "../reference/add.ts";
import * as attention from "../reference/attention.ts";
import * as clip from "../reference/clip.ts";
import * as embedding from "../reference/embedding.ts";
import * as matmul from "../reference/matmul.ts";
import * as pairLoss from "../reference/pair_loss.ts";
import * as rmsNorm from "../reference/rms_norm.ts";
import * as rope from "../reference/rope.ts";
import * as sequenceLogps from "../reference/sequence_logps.ts";
import * as silu from "../reference/silu.ts";
import * as spo from "../reference/spo.ts";
import * as swiglu from "../reference/swiglu.ts";
import * as tokenLogps from "../reference/token_logps.ts";

/** Largest error against PyTorch, relative above 1 and absolute below. */
const TOLERANCE = 1e-10;

type Value = number | boolean | string | number[] | number[][];

interface Case {
  op: string;
  name: string;
  dims: Record<string, unknown>;
  inputs: Record<string, Value>;
  outputs: Record<string, Value>;
  upstream?: Record<string, Value>;
  gradients?: Record<string, Value>;
}

/** A reference op with its types erased: the golden file carries matching names. */
interface Reference {
  forward: (inputs: never, dims: never) => object;
  backward?: (inputs: never, dims: never, upstream: never) => object;
}

const REFERENCES: Record<string, Reference> = {
  adamw,
  add,
  attention,
  clip,
  embedding,
  matmul,
  pair_loss: pairLoss,
  rms_norm: rmsNorm,
  rope,
  sequence_logps: sequenceLogps,
  silu,
  spo,
  swiglu,
  token_logps: tokenLogps,
};

const golden: { cases: Case[] } = JSON.parse(readFileSync(new URL("ops.json", import.meta.url), "utf8"));

for (const { op, name, dims, inputs, outputs, upstream, gradients } of golden.cases) {
  Deno.test(`${op} (${name}): the reference agrees with PyTorch`, () => {
    const reference = REFERENCES[op];
    const [tensors, settings] = [toTensors(inputs) as never, dims as never];
    assertAgrees(reference.forward(tensors, settings) as Record<string, unknown>, outputs);
    if (gradients === undefined || upstream === undefined) return;
    assert.ok(reference.backward, `${op} has a backward`);
    const found = reference.backward(tensors, settings, toTensors(upstream) as never);
    assert.deepEqual(Object.keys(found).sort(), Object.keys(gradients).sort());
    assertAgrees(found as Record<string, unknown>, gradients);
  });
}

Deno.test("the golden file has cases of every op, and gradients of every op with a backward", () => {
  for (const [op, reference] of Object.entries(REFERENCES)) {
    const cases = golden.cases.filter((one) => one.op === op);
    assert.ok(cases.length > 0, `cases of ${op}`);
    if (reference.backward) {
      assert.ok(cases.every((one) => one.gradients && one.upstream), `gradients of ${op}`);
    }
  }
});

function toTensors(values: Record<string, Value>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, toTensor(value)]),
  );
}

function toTensor(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  return Array.isArray(value[0]) ? value.map(toTensor) : Float64Array.from(value);
}

/** Every value of `expected` is in `found` under its name, with the same number of elements, within the tolerance. */
function assertAgrees(found: Record<string, unknown>, expected: Record<string, Value>): void {
  for (const [name, value] of Object.entries(expected)) {
    const [actual, wanted] = [flat(found[name]), flat(value)];
    assert.equal(actual.length, wanted.length, `length of ${name}`);
    actual.forEach((x, i) => {
      const error = Math.abs(x - wanted[i]) / Math.max(1, Math.abs(wanted[i]));
      assert.ok(error < TOLERANCE, `${name}[${i}] is ${x}, PyTorch has ${wanted[i]}`);
    });
  }
}

function flat(value: unknown): number[] {
  if (typeof value === "number") return [value];
  return Array.from(value as Iterable<unknown>).flatMap(flat);
}
