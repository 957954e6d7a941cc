import assert from "node:assert/strict";
import { kernelWgsl } from "../../shaders/kernel.ts";
import { findMember, flattenConstants } from "../../shaders/members.ts";
import { PURPOSES } from "../../shaders/purposes.ts";
import { KERNELS } from "../../shaders/registry.ts";
import { parseCommandLine } from "../../train/command_line.ts";
import { runWgsl } from "../../train/commands/run_wgsl.ts";
import { testGpu } from "../gpu.ts";

/** What the command prints. */
async function printed(...words: string[]): Promise<string> {
  const line = parseCommandLine(["wgsl", ...words]);
  assert.ok(!line.help);
  const { log } = console;
  let text = "";
  console.log = (part: string) => text += `${part}\n`;
  try {
    assert.equal(await runWgsl(line), 0);
  } finally {
    console.log = log;
  }
  return text;
}

Deno.test("every kernel has its purpose, and no other has", () => {
  assert.deepEqual(Object.keys(PURPOSES).sort(), [...KERNELS.keys()].sort());
  for (const [name, purpose] of Object.entries(PURPOSES)) assert.ok(purpose.length <= 80, name);
});

Deno.test("wgsl prints the first member, or the one with the constants that were set", async () => {
  const { kernel, constants } = KERNELS.get("attention_tiles_forward")!;
  assert.equal(await printed("attention_tiles_forward"), kernelWgsl(kernel, constants[0]));
  const set = await printed("attention_tiles_forward", "--set", "headDim=64, storage=f16");
  assert.equal(set, kernelWgsl(kernel, { headDim: 64, storage: "f16", lanesX: 8 }));
  const { name, purpose, constants: found, wgsl } = JSON.parse(
    await printed("pair_loss", "--set", "terms.0.loss=ipo", "--json"),
  );
  assert.deepEqual([name, purpose], ["pair_loss", PURPOSES.pair_loss]);
  assert.deepEqual(found, { terms: [{ loss: "ipo" }], penalty: "none", extras: [] });
  assert.match(wgsl, /^\/\/ pair_loss \{"terms":\[\{"loss":"ipo"/);
});

Deno.test("wgsl --list names every kernel; of one, its members in a form that --set takes", async () => {
  const rows = JSON.parse(await printed("--list", "--json"));
  assert.deepEqual(rows.map(({ name }: { name: string }) => name), [...KERNELS.keys()].sort());
  assert.match(await printed("--list"), /^rms_norm_forward +24 +RMS norm$/m);
  for (const [name, registered] of KERNELS) {
    const members = (await printed(name, "--list")).trimEnd().split("\n");
    assert.equal(members.length, registered.constants.length);
    const last = members.at(-1)!;
    const flags = last === "(no constants)" ? [] : ["--set", last];
    assert.equal(
      await printed(name, ...flags),
      kernelWgsl(registered.kernel, registered.constants.at(-1)),
      name,
    );
  }
});

Deno.test("a number that no member has is put in, and its source compiles", async () => {
  const registered = KERNELS.get("attention_tiles_forward")!;
  const member = findMember(registered, new Map([["headDim", 80]]));
  assert.equal(flattenConstants(member).get("headDim"), 80);
  const { device } = await testGpu();
  device.pushErrorScope("validation");
  device.createShaderModule({
    label: "80",
    code: await printed("attention_tiles_forward", "--set", "headDim=80"),
  });
  assert.equal(await device.popErrorScope(), null);
});

const REFUSED: [words: string[], message: string][] = [
  [[], "Cannot print a kernel: expected its name, found none (--list names them)"],
  [
    ["rms_norm_foward"],
    'Cannot print "rms_norm_foward": expected a kernel, found none of that name (did you mean rms_norm_forward?)',
  ],
  [["zzz"], 'Cannot print "zzz": expected a kernel, found none of that name (--list names them)'],
  [["rope", "mix"], 'Cannot print "mix": expected one kernel, found another before it'],
  [["--list", "--set", "a=1"], "Cannot use --set: expected a kernel to print, found --list beside it"],
  [["rope", "--set", "a"], 'Cannot use --set: expected name=value, several joined by commas, found "a"'],
  [["rope", "--set", "width=1,width=4"], "Cannot use --set: expected width once, found it twice"],
  [["rope", "--set", "depth=1"], "Cannot use --set: expected one of storage, memory, width, found depth"],
  [["rope", "--set", "storage=f8"], "Cannot use --set: expected storage to be f32 or f16, found f8"],
  [["clip_state", "--set", "scaled=1"], "Cannot use --set: expected scaled to be true or false, found 1"],
  [
    ["argmax_rows", "--set", "a=1"],
    "Cannot use --set: expected none, as this kernel has one member, found a",
  ],
];
for (const [words, message] of REFUSED) {
  Deno.test(`wgsl refuses: ${words.join(" ")}`, async () => {
    await assert.rejects(async () => await printed(...words), { name: "ConfigError", message });
  });
}
