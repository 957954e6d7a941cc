import assert from "node:assert/strict";
import { ropeFrequencies, type RopeScaling } from "../../train/models/rope_scaling.ts";
import { assertClose } from "../ops/check_op.ts";

const [HEAD_DIM, THETA, MAX] = [16, 10000, 512];

/** What is multiplied by the position, for each pair of a head. */
function frequencies(rope_scaling: RopeScaling | null, positions = MAX): number[] {
  const config = { rope_theta: THETA, rope_scaling, head_dim: HEAD_DIM, max_position_embeddings: MAX };
  const { theta, scale } = ropeFrequencies(config, positions);
  return Array.from({ length: HEAD_DIM / 2 }, (_, i) => scale(theta ** (-2 * i / HEAD_DIM)));
}

const PLAIN = frequencies(null);
const close = (found: number[], expected: number[], what: string) =>
  assertClose(found, expected, { what, atol: 0, rtol: 1e-12 });

Deno.test("linear scaling divides every frequency by the factor", () => {
  close(frequencies({ rope_type: "linear", factor: 4 }), PLAIN.map((value) => value / 4), "linear");
});

Deno.test("dynamic scaling changes nothing up to the trained length, and grows the base beyond", () => {
  const scaling = { rope_type: "dynamic", factor: 2 } as const;
  assert.deepEqual(frequencies(scaling), PLAIN);
  assert.deepEqual(frequencies(scaling, 1), PLAIN);
  // Twice the length: the base times (2 * 2 - 1)^(16 / 14).
  const base = THETA * 3 ** (16 / 14);
  const expected = PLAIN.map((_, i) => base ** (-2 * i / HEAD_DIM));
  close(frequencies(scaling, 2 * MAX), expected, "dynamic");
  assert.equal(frequencies(scaling, 2 * MAX)[0], 1);
});

Deno.test("llama3 scaling keeps short wavelengths, stretches long ones, and goes from one to the other evenly", () => {
  const original = 512;
  const bounds = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: original };
  const found = frequencies({ rope_type: "llama3", factor: 8, ...bounds });
  const kinds = PLAIN.map((frequency, i) => {
    const wavelength = 2 * Math.PI / frequency;
    if (wavelength < original / 4) return [found[i] / frequency, "kept"];
    if (wavelength > original / 1) return [found[i] / frequency * 8, "stretched"];
    const smooth = (original / wavelength - 1) / (4 - 1);
    return [found[i] / ((1 - smooth) * frequency / 8 + smooth * frequency), "between"];
  });
  assert.deepEqual(new Set(kinds.map(([, kind]) => kind)), new Set(["kept", "between", "stretched"]));
  close(kinds.map(([ratio]) => ratio as number), PLAIN.map(() => 1), "llama3");
});
