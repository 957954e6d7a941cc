import { assertBackward } from "./central_difference.ts";
import * as loraLinear from "./lora_linear.ts";
import { normals, seededRandom } from "./random.ts";

const CASES: Record<string, loraLinear.LoraLinearDims> = {
  "one module": { N: 4, C: 3, O: 5, R: 2, modules: [[0, 5]], scale: 0.7 },
  "one module, Conv1D": { N: 4, C: 3, O: 5, R: 1, modules: [[0, 5]], scale: 2, isInOut: true },
  "two of three modules": { N: 2, C: 3, O: 7, R: 2, modules: [[0, 3], [5, 7]], scale: 1.5 },
};

for (const [name, dims] of Object.entries(CASES)) {
  Deno.test(`lora_linear, ${name}: backward is the central difference`, () => {
    const { N, C, O, R, modules } = dims;
    const random = seededRandom(N + C + O);
    const draw = (length: number) => normals(random, { length });
    const rows = modules.reduce((total, [first, end]) => total + end - first, 0);
    const inputs = {
      ...{ x: draw(N * C), weight: draw(O * C), a: draw(modules.length * R * C), b: draw(rows * R) },
      ...{ bias: draw(O), residual: draw(N * O) },
    };
    assertBackward(loraLinear, { inputs, dims, outputs: ["y"], seed: 9 });
  });
}
