/** Several runs in one process: nothing that one of them changes is seen by another. */
import assert from "node:assert/strict";
import { type Source, sources } from "./sources.ts";

/** What modules hold that changes, and why no run can tell. */
const KEPT: Readonly<Record<string, string>> = {
  "engine/dtype.ts halfBits": "made once, the same for all",
  "engine/ops/dispatch.ts CHOSEN": "by device",
  "engine/tape.ts OVERWRITTEN": "by tensor",
  "train/dashboard/worker.ts server": "of a thread that one run starts",
  "train/data/chat_template.ts PARSED": "by template; parsed again, it is the same",
  "train/help.ts defaults": "of the losses; made when help is asked for",
  "train/models/checkpoint_load.ts layouts": "by a model's parameters",
  "train/software_driver.ts pending": "a process loads one driver",
  "train/terminal.ts received": "signals come to the process; of the command line alone",
};

Deno.test("no module holds state, but for what belongs to no run", () => {
  assert.deepEqual(sources.flatMap(stateOf).toSorted(), Object.keys(KEPT).toSorted());
});

Deno.test("stateOf finds variables and containers that begin empty, not constants", () => {
  const code = [
    "let a = 1;",
    "export let b: number | undefined;",
    "const c = new Map<string, number>();",
    "const d: Set<string> = new Set();",
    "const e = new WeakMap<object, Map<string, string[]>>();",
    "const f: string[] = [];",
    'const no = new Set(["x"]);',
    "  let neither = 1;",
    "const nor = () => { let inside = 1; };",
  ].join("\n");
  assert.deepEqual(
    stateOf({ path: "x.ts", code }),
    ["a", "b", "c", "d", "e", "f"].map((name) => `x.ts ${name}`),
  );
  assert.deepEqual(stateOf({ path: "shaders/x.ts", code: "let wgsl = 1;" }), []);
});

/** Names at the top level of a module whose values can change. */
function stateOf({ path, code }: Pick<Source, "path" | "code">): string[] {
  // A line of shaders/ that begins so is WGSL.
  const variables = path.startsWith("shaders/") ? [] : [...code.matchAll(/^(?:export )?(?:let|var) (\w+)/gm)];
  const containers = code.matchAll(
    /^(?:export )?const (\w+)(?:: [^=]+)? = (?:new (?:Weak)?(?:Map|Set)(?:<.*>)?\(\)|\[\]|\{\});/gm,
  );
  return [...variables, ...containers].map(([, name]) => `${path} ${name}`);
}
