/**
 * The one way WGSL text is written in Keel: wgsl-preprocessor's tagged template behind a typed wrapper.
 *
 * The wrapper exists because the tag accepts anything: `undefined` prints as text, `#if ${"false"}` is true.
 * @module
 */
// @ts-types="./wgsl_preprocessor.d.ts"
import { wgsl as preprocess } from "wgsl-preprocessor";

/** What may stand in a template: text, an integer, or a boolean that follows `#if` or `#elif`. */
export type WgslValue = string | number | boolean;

const CONDITIONAL = /#(?:if|elif)\s*$/;

/**
 * Builds WGSL source from a template, resolving `#if ${boolean}`, `#elif ${boolean}`, `#else`, `#endif`.
 *
 * @returns the source text
 * @throws {TypeError} when a value is undefined, an object, a non-integer number (use {@link f32}), or a
 * condition is not a boolean, or a boolean is not a condition
 * @example
 * ```ts
 * import { f32, wgsl } from "./wgsl.ts";
 * const body = wgsl`
 *   let eps = ${f32(1e-5)};
 *   #if ${true}
 *   let n = ${4}u;
 *   #endif`;
 * if (!body.includes("let n = 4u;")) throw new Error(body);
 * ```
 */
export function wgsl(strings: TemplateStringsArray, ...values: WgslValue[]): string {
  values.forEach((value, index) => {
    const isCondition = CONDITIONAL.test(strings[index]);
    if (isCondition !== (typeof value === "boolean")) {
      throw new TypeError(
        `Cannot build WGSL: expected ${
          isCondition ? "a boolean after #if" : "text or an integer"
        }, found ${value}`,
      );
    }
    if (typeof value === "number" && !Number.isInteger(value)) {
      throw new TypeError(`Cannot build WGSL: expected an integer (or f32(x)), found ${value}`);
    }
    if (!["string", "number", "boolean"].includes(typeof value)) {
      throw new TypeError(`Cannot build WGSL: expected text, found ${typeof value}`);
    }
  });
  return preprocess(strings, ...values);
}

/**
 * Prints a number as an f32 literal, which WGSL never reads as an integer.
 *
 * @throws {RangeError} when the value is not finite as f32
 */
export function f32(value: number): string {
  if (!Number.isFinite(Math.fround(value))) {
    throw new RangeError(`Cannot print an f32 literal: expected a finite value, found ${value}`);
  }
  const text = String(Math.fround(value));
  // Without a point or an exponent it would be an integer, of which 1e20 is too large a one.
  return `f32(${/[.e]/.test(text) ? text : `${text}.0`})`;
}

/** Repeats a fragment for 0..count-1, one line each: the generator's unrolled loop. */
export function unroll(count: number, fragment: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => fragment(index)).join("\n");
}
