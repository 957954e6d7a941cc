/**
 * Keel in a browser: the same modules on another WebGPU, through another compiler.
 *
 * @module
 */
import assert from "node:assert/strict";
import { KERNELS } from "../../shaders/registry.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { chromiumTest } from "../chromium.ts";
import { callInBrowser } from "./call_in_browser.ts";
import type { Compilation } from "./compile_kernels.ts";
import { type TenSteps, trainTenSteps } from "./train_ten_steps.ts";

const ROOT = new URL("../../", import.meta.url);

/** Two compilers, two orders of rounding. */
const TOLERANCE = 1e-4;

/** The sum of every optional input binds more buffers than WebGPU promises: 12, of at least 8. */
const MAY_BE_BEYOND_LIMITS =
  /^pair_loss .*"margins","weights","prompt_logps".*: maxStorageBuffersPerShaderStage: /;

chromiumTest("every kernel compiles in a browser", async (browser) => {
  const { adapter, sources, complaints, pipelines, beyondLimits } = await callInBrowser<Compilation>(
    browser,
    { entry: "tests/browser/compile_kernels.ts", name: "compileKernels" },
  );
  assert.deepEqual(complaints, []);
  assert.equal(sources, [...KERNELS.values()].reduce((total, { constants }) => total + constants.length, 0));
  for (const place of beyondLimits) {
    console.log(`not on ${adapter}: ${place}`);
    assert.match(place, MAY_BE_BEYOND_LIMITS);
  }
  console.log(`${adapter}: ${sources} sources, ${pipelines.length} of ${KERNELS.size} kernels to pipelines`);
  assert(pipelines.length > KERNELS.size / 2, `${pipelines.length} pipelines`);
}, { webGpu: true });

chromiumTest("the page of docs/embedding.md runs", async (browser) => {
  const text = await Deno.readTextFile(new URL("docs/embedding.md", ROOT));
  const [, block] = /^## In a browser\n\n```ts ignore\n(.*?)^```$/ms.exec(text) ?? assert.fail("no block");
  const entry = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(entry, block.replaceAll('from "../', `from "${ROOT}`));
  assert.deepEqual(await callInBrowser(browser, { entry, name: "main" }), [7, 10, 15, 22]);
  await Deno.remove(entry);
}, { webGpu: true });

chromiumTest("ten steps in a browser have the losses that they have in Deno", async (browser) => {
  await ensureAdapter();
  const own = await trainTenSteps();
  const found = await callInBrowser<TenSteps>(browser, {
    entry: "tests/browser/train_ten_steps.ts",
    name: "trainTenSteps",
  });
  const distances = own.losses.map((loss, step) => Math.abs(loss - found.losses[step]));
  const largest = Math.max(...distances).toExponential(1);
  console.log(`${found.adapter}: losses at most ${largest} from those of ${own.adapter}`);
  assert.equal(found.losses.length, 10);
  assert.notEqual(found.adapter, own.adapter);
  assert(
    distances.every((distance) => distance <= TOLERANCE),
    `losses differ: ${found.losses}, ${own.losses}`,
  );
  assert.deepEqual([own.leftBytes, found.leftBytes], [0, 0]);
}, { webGpu: true });
