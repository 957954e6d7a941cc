import assert from "node:assert/strict";
import { assertBackward, centralDifference } from "./central_difference.ts";

const CHECK = { inputs: { x: Float64Array.of(0.5, -2, 3) }, dims: {}, outputs: ["y"], seed: 1 };

function cube({ x }: { x: Float64Array }) {
  return { y: x.map((value) => value ** 3) };
}

/** A backward of the cube with each gradient passed through `spoil`. */
function cubeBackward(spoil: (gradient: number, index: number) => number) {
  return ({ x }: { x: Float64Array }, _dims: object, { dY }: { dY: Float64Array }) => ({
    dX: x.map((value, i) => spoil(3 * value ** 2 * dY[i], i)),
  });
}

Deno.test("central difference of x^3 at 2 is 12, and the input is restored", () => {
  const input = Float64Array.of(7, 2);
  const slope = centralDifference(() => input[1] ** 3, { input, index: 1 });
  assert.ok(Math.abs(slope - 12) < 1e-8, `found ${slope}`);
  assert.deepEqual(input, Float64Array.of(7, 2));
});

Deno.test("the backward check accepts a right gradient and refuses each wrong one", () => {
  assertBackward({ forward: cube, backward: cubeBackward((g) => g) }, CHECK);
  const wrong: Record<string, (g: number, i: number) => number> = {
    "flipped sign of one element": (g, i) => i === 2 ? -g : g,
    "missing element": (g, i) => i === 0 ? 0 : g,
    "one part in 100,000": (g) => g * 1.00001,
    "NaN": (g, i) => i === 1 ? NaN : g,
  };
  for (const [name, spoil] of Object.entries(wrong)) {
    assert.throws(
      () => assertBackward({ forward: cube, backward: cubeBackward(spoil) }, CHECK),
      /dX\[\d\] is .*, central difference/,
      name,
    );
  }
});

Deno.test("the backward check refuses a gradient of another length and a backward without any", () => {
  assert.throws(() =>
    assertBackward({ forward: cube, backward: () => ({ dX: new Float64Array(2) }) }, CHECK)
  );
  assert.throws(() => assertBackward({ forward: cube, backward: () => ({}) }, CHECK));
});
