import assert from "node:assert/strict";
import { loraConfigJson, loraScale, parseLoraConfig } from "../../train/adapters/lora_config.ts";
import { CheckpointError } from "../../train/errors.ts";

const PLAIN = { peft_type: "LORA", r: 8, lora_alpha: 16, target_modules: ["q_proj"] };

/** Keys as PEFT writes them -> what the message says after the file's name. */
const REFUSED: [Record<string, unknown>, string][] = [
  [{ peft_type: "IA3" }, 'peft_type: expected "LORA" (no other kind of adapter is supported), found "IA3"'],
  [{ task_type: "SEQ_CLS" }, 'task_type: expected "CAUSAL_LM", found "SEQ_CLS"'],
  [{ r: 0 }, "r: expected an integer of at least 1, found 0"],
  [{ lora_alpha: "8" }, 'lora_alpha: expected a number above 0, found "8"'],
  [{ target_modules: null }, "target_modules: expected a pattern or a list of modules, found null"],
  [{ target_modules: [] }, "target_modules: expected at least one module, found []"],
  [{ use_dora: true }, "use_dora: expected null (nothing else is supported), found true"],
  [{ lora_bias: true }, "lora_bias: expected null (nothing else is supported), found true"],
  [{ bias: "all" }, 'bias: expected "none" (nothing else is supported), found "all"'],
  [
    { rank_pattern: { q_proj: 4 } },
    'rank_pattern: expected null (nothing else is supported), found {"q_proj":4}',
  ],
  [{ alpha_pattern: { q: 4 } }, 'alpha_pattern: expected null (nothing else is supported), found {"q":4}'],
  [{ layers_to_transform: [0] }, "layers_to_transform: expected null (nothing else is supported), found [0]"],
  [{ layers_to_transform: 3 }, "layers_to_transform: expected null (nothing else is supported), found 3"],
  [
    { modules_to_save: ["lm_head"] },
    'modules_to_save: expected null (nothing else is supported), found ["lm_head"]',
  ],
  [
    { init_lora_weights: "pissa" },
    'init_lora_weights: expected true, false, "gaussian" or "orthogonal" (other ways to begin change the base, too), ' +
    'found "pissa"',
  ],
  [{ some_new_maths: 1 }, "some_new_maths: expected null (nothing else is supported), found 1"],
];

for (const [change, message] of REFUSED) {
  Deno.test(`adapter_config.json with ${JSON.stringify(change)} is refused by name`, () => {
    assert.throws(
      () => parseLoraConfig({ ...PLAIN, ...change }, "a/adapter_config.json"),
      new CheckpointError(`Cannot read a/adapter_config.json: ${message}`),
    );
  });
}

Deno.test("keys that change nothing are passed over, and what is off may have any name", () => {
  const inert = {
    peft_version: "0.21.2",
    inference_mode: true,
    megatron_core: "megatron.core",
    revision: "main",
  };
  const off = { use_dora: false, bias: "none", loftq_config: {}, exclude_modules: null, invented: false };
  const config = parseLoraConfig({ ...PLAIN, ...inert, ...off, lora_dropout: 0.1 }, "file");
  assert.deepEqual(config, {
    ...{
      rank: 8,
      alpha: 16,
      rslora: false,
      targetModules: ["q_proj"],
      base: null,
      isInOut: false,
      dropout: 0.1,
    },
  });
});

Deno.test("the scale is alpha / r, and alpha / sqrt(r) with rsLoRA", () => {
  assert.equal(loraScale({ rank: 16, alpha: 8, rslora: false }), 0.5);
  assert.equal(loraScale({ rank: 16, alpha: 8, rslora: true }), 2);
});

Deno.test("what is written is read back", () => {
  const config = { rank: 4, alpha: 2.5, rslora: true, targetModules: ".*_proj", base: "owner/name" };
  const json = JSON.parse(JSON.stringify(loraConfigJson(config, { isInOut: true })));
  assert.deepEqual(parseLoraConfig(json, "file"), { ...config, isInOut: true, dropout: 0 });
});
