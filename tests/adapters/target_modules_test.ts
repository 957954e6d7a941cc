import assert from "node:assert/strict";
import { findTargets, linearModules, parseTargets } from "../../train/adapters/target_modules.ts";
import { ConfigError } from "../../train/errors.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { architectureOf } from "../../train/models/registry.ts";

const SIZES = {
  vocab_size: 8,
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 11,
  num_attention_heads: 2,
};

function architecture(json: Record<string, unknown> = { model_type: "llama", ...SIZES }) {
  return architectureOf(parseModelConfig(json, { file: "config.json" }));
}

const LLAMA = architecture();
const layer = (index: number, ...names: string[]) => names.map((name) => `model.layers.${index}.${name}`);

Deno.test("all-linear is every linear layer of every layer, and neither embedding nor head", () => {
  const found = findTargets(LLAMA, "all-linear");
  assert.equal(found.length, 11 * 7);
  assert.deepEqual(
    found.filter((name) => name.startsWith("model.layers.10.")).toSorted(),
    layer(
      10,
      ...["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"],
      ...["k", "o", "q", "v"].map((part) => `self_attn.${part}_proj`),
    ),
  );
  const gpt2 = architecture({
    model_type: "gpt2",
    vocab_size: 60000,
    n_embd: 8,
    n_layer: 1,
    n_head: 2,
    n_positions: 8,
  });
  assert.deepEqual(linearModules(gpt2), [
    "transformer.h.0.attn.c_attn",
    "transformer.h.0.attn.c_proj",
    "transformer.h.0.mlp.c_fc",
    "transformer.h.0.mlp.c_proj",
  ]);
});

Deno.test("a list matches whole ends of names, a text whole names, as in PEFT", () => {
  assert.deepEqual(findTargets(LLAMA, ["v_proj", "layers.1.self_attn.q_proj"]).slice(0, 3), [
    ...layer(0, "self_attn.v_proj"),
    ...layer(1, "self_attn.q_proj", "self_attn.v_proj"),
  ]);
  // Layer 10 ends in neither, and `proj` is no whole end.
  assert.equal(findTargets(LLAMA, ["0.mlp.up_proj"]).length, 1);
  assert.throws(() => findTargets(LLAMA, ["proj"]), ConfigError);
  const pattern = String.raw`model\.layers\.(0|3)\.mlp\.(gate|up)_proj`;
  assert.deepEqual(findTargets(LLAMA, pattern), [
    ...layer(0, "mlp.gate_proj", "mlp.up_proj"),
    ...layer(3, "mlp.gate_proj", "mlp.up_proj"),
  ]);
  assert.throws(() => findTargets(LLAMA, "q_proj"), ConfigError);
});

for (
  const [targets, message] of [
    [
      ["q_proj", "w_proj"],
      "Cannot add LoRA: expected target modules of this model (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, " +
      'down_proj), found "w_proj", which none matches',
    ],
    [
      ["lm_head"],
      "Cannot add LoRA: expected linear layers of the model's layers, found lm_head (embedding and head stay as they " +
      'are), which "lm_head" matches',
    ],
    [
      ".*",
      "Cannot add LoRA: expected linear layers of the model's layers, found model.embed_tokens (embedding and head " +
      'stay as they are), which ".*" matches',
    ],
    [
      "(",
      'Cannot add LoRA: expected a regular expression or a list of modules, found "(": Invalid regular expression: ' +
      "/^(?:()$/: Unterminated group",
    ],
  ] as const
) {
  Deno.test(`targets ${JSON.stringify(targets)} are refused`, () => {
    assert.throws(() => findTargets(LLAMA, targets), new ConfigError(message));
  });
}

Deno.test("a flag holds names with commas, or a regular expression", () => {
  assert.deepEqual(parseTargets("q_proj"), ["q_proj"]);
  assert.deepEqual(parseTargets("self_attn.q_proj, v_proj"), ["self_attn.q_proj", "v_proj"]);
  assert.equal(parseTargets(String.raw`.*\.(q|v)_proj`), String.raw`.*\.(q|v)_proj`);
  assert.equal(parseTargets("all-linear"), "all-linear");
});
