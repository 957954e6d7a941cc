import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { sizeOf } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, toHost } from "../../engine/tensor.ts";
import { gatedLinear } from "../../train/models/linear.ts";
import type { Model } from "../../train/models/model.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as matmul from "../reference/matmul.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as swiglu from "../reference/swiglu.ts";

const [N, F, C] = [5, 12, 8];
const NAMES = ["gate", "up"] as const;

/** The parts of a model that its linear layers read. */
function modelOf(gpu: Gpu, { hasBias }: { hasBias: boolean }): { model: Model; parameters: Parameters } {
  const parts = [["weight", [F, C]], ...(hasBias ? [["bias", [F]]] : [])] as [string, number[]][];
  const shapes = new Map(
    parts.flatMap(([part, shape]) => NAMES.map((name) => [`${name}.${part}`, shape] as const)),
  );
  const groups = parts.map(([part]) => NAMES.map((name) => `${name}.${part}`));
  const parameters = createParameters(gpu, shapes, { trainable: true, groups });
  const random = seededRandom(3);
  for (const [name, shape] of shapes) {
    parameters.write(name, Float32Array.from(normals(random, { length: sizeOf(shape) })));
  }
  return {
    model: { gpu, parameters, architecture: { weightLayout: "out_in" } } as unknown as Model,
    parameters,
  };
}

for (const hasBias of [false, true]) {
  gpuTest(`gatedLinear ${hasBias ? "with" : "without"} biases, forward and backward`, async (gpu) => {
    const { model, parameters } = modelOf(gpu, { hasBias });
    using _parameters = parameters;
    const random = seededRandom(4);
    const draw = (length: number) => Float32Array.from(normals(random, { length }));
    const x = fromHost(gpu, draw(N * C), { shape: [N, C] });
    const dY = fromHost(gpu, draw(N * F), { shape: [N, F] });
    const tape = new Tape(gpu);
    const y = tape.keep(gatedLinear(model, x, NAMES));
    tape.backward([{ tensor: y, gradient: dY }]);
    const read = async (name: string) => Float64Array.from(await parameters.read(name));
    const inputs = Float64Array.from(await toHost(x));
    const halves = [];
    for (const name of NAMES) {
      const b = await read(`${name}.weight`);
      const bias = hasBias ? await read(`${name}.bias`) : new Float64Array(F);
      halves.push(
        matmul.epilogueForward({ a: inputs, b, bias, residual: new Float64Array(N * F) }, {
          ...{ M: N, N: F, K: C, transposeB: true, scale: 1 },
        }).c,
      );
    }
    const [gate, up] = halves;
    assertClose(await toHost(y), swiglu.forward({ gate, up }, { length: N * F }).y, { what: "y" });
    const { dGate } = swiglu.backward({ gate, up }, { length: N * F }, {
      dY: Float64Array.from(await toHost(dY)),
    });
    const { dB } = matmul.backward({ a: inputs, b: await read("gate.weight") }, {
      ...{ M: N, N: F, K: C, transposeB: true },
    }, { dC: dGate });
    assertClose(await parameters.readGradient("gate.weight"), dB, { what: "gradient of the gate" });
    if (hasBias) {
      const sums = Float64Array.from(
        { length: F },
        (_, f) => dGate.reduce((sum, value, i) => sum + (i % F === f ? value : 0), 0),
      );
      assertClose(await parameters.readGradient("gate.bias"), sums, { what: "gradient of the gate's bias" });
    }
    assert.deepEqual(y.shape, [N, F]);
    [x, y, dY].forEach(release);
  });
}
