import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { kernelWgsl } from "../../shaders/kernel.ts";
import { KERNELS, kernelSources } from "../../shaders/registry.ts";
import { testGpu } from "../gpu.ts";

const SHADERS = fileURLToPath(new URL("../../shaders/", import.meta.url));

for (const [name, { kernel, constants }] of KERNELS) {
  Deno.test(`${name}: every member compiles, within the device's limits`, async () => {
    const { device } = await testGpu();
    for (const values of constants) {
      const label = `${name} ${JSON.stringify(values)}`;
      const source = kernel.build(values);
      assert.ok((source.workgroupBytes ?? 0) <= device.limits.maxComputeWorkgroupStorageSize, label);
      device.pushErrorScope("validation");
      const code = kernelWgsl(kernel, values);
      device.createComputePipeline({
        label,
        layout: "auto",
        compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
      });
      const error = await device.popErrorScope();
      assert.equal(error, null, `${label}: ${error?.message}`);
    }
  });

  Deno.test(`${name}: the declared workgroup memory is what the source takes`, () => {
    for (const values of constants) {
      const code = kernelWgsl(kernel, values);
      const declared = [...code.matchAll(/var<workgroup>\s+\w+:\s*([^;]+);/g)]
        .reduce((total, [, type]) => total + bytesOf(type), 0);
      assert.ok(
        declared <= (kernel.build(values).workgroupBytes ?? 0),
        `${name} ${JSON.stringify(values)}: found ${declared} bytes`,
      );
    }
  });
}

/** Bytes of a WGSL type made of arrays and 32-bit elements. */
function bytesOf(type: string): number {
  const array = type.match(/^array<(.+), (\d+)>$/);
  if (array) return bytesOf(array[1]) * Number(array[2]);
  return { f32: 4, u32: 4, i32: 4, vec4f: 16 }[type] ?? assert.fail(`unknown type ${type}`);
}

Deno.test("every kernel in shaders/ is registered", () => {
  const names = readdirSync(SHADERS).filter((file) => file.endsWith(".ts")).flatMap((file) => {
    const text = readFileSync(`${SHADERS}${file}`, "utf8");
    return [
      ...[...text.matchAll(/: Kernel<.*> = \{\s*name: "(\w+)"/g)].map(([, name]) => name),
      ...[...text.matchAll(/= elementwise\("(\w+)"/g)].map(([, name]) => name),
    ];
  });
  assert.deepEqual([...names].sort(), [...KERNELS.keys()].sort());
});

Deno.test("kernelSources prints each member with its header, and refuses unknown names", () => {
  const [cpu] = kernelSources("square_sum_partial");
  assert.match(cpu, /^\/\/ square_sum_partial \{"lanes":8\}\n\/\/ partial\[first \+ w\]/);
  assert.match(cpu, /@group\(0\) @binding\(0\) var<storage, read> x: array<vec4f>;/);
  assert.throws(() => kernelSources("square_sum"), /expected one of accumulate, .*, found square_sum/);
});
