import assert from "node:assert/strict";
import { f32, unroll, wgsl, type WgslValue } from "../../shaders/wgsl.ts";

/** A value that the types would not let through. */
const untyped = (value: unknown) => value as WgslValue;

Deno.test("wgsl refuses values that would be printed as something else", () => {
  const cases: [unknown, RegExp][] = [
    [undefined, /expected text, found undefined/],
    [null, /expected text, found object/],
    [{}, /expected text, found object/],
    [[1, 2], /expected text, found object/],
    [() => "1", /expected text, found function/],
    [1n, /expected text, found bigint/],
    [0.5, /expected an integer \(or f32\(x\)\), found 0.5/],
    [NaN, /expected an integer \(or f32\(x\)\), found NaN/],
    [Infinity, /expected an integer \(or f32\(x\)\), found Infinity/],
    [true, /expected text or an integer, found true/],
  ];
  for (const [value, message] of cases) {
    assert.throws(() => wgsl`let x = ${untyped(value)};`, (error: Error) => {
      assert.ok(error instanceof TypeError, `${error}`);
      assert.match(error.message, /^Cannot build WGSL: /);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("wgsl refuses conditions that are not booleans", () => {
  for (const value of ["false", "", 0, 1, undefined, null, {}]) {
    assert.throws(
      () => wgsl`#if ${untyped(value)}\nlet a = 1;\n#endif`,
      (error: Error) => error instanceof TypeError && error.message.includes("expected a boolean after #if"),
    );
    assert.throws(
      () => wgsl`#if ${false}\nlet a = 1;\n#elif ${untyped(value)}\nlet b = 1;\n#endif`,
      (error: Error) => error instanceof TypeError && error.message.includes("expected a boolean after #if"),
    );
  }
});

Deno.test("wgsl takes the branch that is true, and prints text and integers as they are", () => {
  const pick = (first: boolean, second: boolean) =>
    wgsl`#if ${first}
one
#elif ${second}
two
#else
three
#endif`.trim();
  assert.deepEqual([pick(true, true), pick(false, true), pick(false, false)], ["one", "two", "three"]);
  assert.equal(wgsl`let ${"x"} = ${-3}i + ${4}u;`.trim(), "let x = -3i + 4u;");
});

Deno.test("f32 prints literals that are never integers, and refuses what f32 cannot hold", () => {
  const cases: [number, string][] = [
    [1, "f32(1.0)"],
    [0, "f32(0.0)"],
    [-2.5, "f32(-2.5)"],
    [1e-5, "f32(0.000009999999747378752)"],
    [0.1, "f32(0.10000000149011612)"],
    [1e20, "f32(100000002004087730000.0)"],
    [1e21, "f32(1.0000000200408773e+21)"],
  ];
  for (const [value, text] of cases) assert.equal(f32(value), text);
  for (const value of [NaN, Infinity, -Infinity, 1e39]) assert.throws(() => f32(value), RangeError);
});

Deno.test("unroll repeats a fragment, one line each", () => {
  assert.equal(unroll(3, (i) => `a${i}`), "a0\na1\na2");
  assert.equal(unroll(0, (i) => `a${i}`), "");
});
