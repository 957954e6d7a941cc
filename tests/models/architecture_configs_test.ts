import assert from "node:assert/strict";
import { join } from "node:path";
import { sizeOf } from "../../engine/shape.ts";
import { CheckpointError, ConfigError } from "../../train/errors.ts";
import { checkWeights } from "../../train/models/check_weights.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import type { Gpt2Config } from "../../train/models/gpt2_config.ts";
import { gpt2Architecture } from "../../train/models/gpt2.ts";
import { architectureOf, type ModelConfig } from "../../train/models/registry.ts";
import { openSafetensors } from "../../train/models/safetensors.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

const FILE = "folder/config.json";
const SIZES = {
  vocab_size: 16,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};
/** The least that a config.json of each architecture must say, or what tells it from the others. */
const LEAST: Record<ModelConfig["model_type"], Record<string, unknown>> = {
  llama: SIZES,
  mistral: { ...SIZES, sliding_window: null },
  qwen2: SIZES,
  qwen3: { ...SIZES, head_dim: 8 },
  phi3: { ...SIZES, eos_token_id: 2, pad_token_id: null },
  gpt2: {
    vocab_size: 16,
    n_embd: 16,
    n_head: 4,
    n_layer: 2,
    n_positions: 32,
    bos_token_id: 0,
    eos_token_id: 0,
  },
};
/** What else must be written as it was given. */
const WRITTEN: Record<ModelConfig["model_type"], Record<string, unknown>> = {
  llama: { attention_bias: true, mlp_bias: true, rope_theta: 5e5, rms_norm_eps: 1e-5, head_dim: 8 },
  mistral: { sliding_window: 8, rope_theta: 1e6 },
  qwen2: { sliding_window: 8, use_sliding_window: true, max_window_layers: 1 },
  qwen3: { attention_bias: true, max_window_layers: 3, head_dim: 12 },
  phi3: { sliding_window: 9, original_max_position_embeddings: 16 },
  gpt2: {
    ...{ n_inner: 8, activation_function: "gelu_pytorch_tanh", layer_norm_epsilon: 1e-6 },
    ...{ resid_pdrop: 0.2, embd_pdrop: 0.3, attn_pdrop: 0, reorder_and_upcast_attn: true, n_ctx: 32 },
  },
};
const TYPES = Object.keys(LEAST) as ModelConfig["model_type"][];

function parse(model_type: ModelConfig["model_type"], changes: Record<string, unknown> = {}): ModelConfig {
  return parseModelConfig({ model_type, ...LEAST[model_type], ...changes }, { file: FILE });
}

const NOT_SUPPORTED = "other values are not supported";
const REFUSED: [type: ModelConfig["model_type"], key: string, value: unknown, expected: string][] = [
  ["mistral", "attention_bias", true, `false (${NOT_SUPPORTED})`],
  ["mistral", "mlp_bias", true, `false (${NOT_SUPPORTED})`],
  ["mistral", "sliding_window", 0, "an integer from 1 to 67108864"],
  ["mistral", "num_experts", 8, `null (${NOT_SUPPORTED})`],
  ["qwen2", "mlp_bias", true, `false (${NOT_SUPPORTED})`],
  ["qwen2", "use_qk_norm", true, `false (${NOT_SUPPORTED})`],
  ["qwen2", "use_sliding_window", "yes", "true or false"],
  ["qwen2", "max_window_layers", -1, "an integer from 0 to 4096"],
  [
    "qwen2",
    "layer_types",
    ["full_attention", "linear_attention"],
    '2 of "full_attention" or "sliding_attention"',
  ],
  ["qwen3", "attention_bias", 1, "true or false"],
  ["qwen3", "head_dim", 6, "a multiple of 4 from 4 to 256"],
  ["qwen3", "num_experts", 128, `null (${NOT_SUPPORTED})`],
  ["phi3", "partial_rotary_factor", 0.75, `1 (${NOT_SUPPORTED})`],
  ["phi3", "resid_pdrop", 0.1, `0 (${NOT_SUPPORTED})`],
  ["phi3", "attention_bias", true, `false (${NOT_SUPPORTED})`],
  ["phi3", "eos_token_id", 32000, "an id below vocab_size 16"],
  ["gpt2", "activation_function", "relu", '"gelu_new" or "gelu_pytorch_tanh"'],
  ["gpt2", "scale_attn_weights", false, `true (${NOT_SUPPORTED})`],
  ["gpt2", "scale_attn_by_inverse_layer_idx", true, `false (${NOT_SUPPORTED})`],
  ["gpt2", "add_cross_attention", true, `false (${NOT_SUPPORTED})`],
  ["gpt2", "reorder_and_upcast_attn", 1, "true or false"],
  ["gpt2", "attn_pdrop", 1.5, "a number from 0 to 1"],
  ["gpt2", "n_embd", 24, "a multiple of 4 up to 256 for each of 4 heads"],
  ["gpt2", "n_head", 3, "a multiple of 4 up to 256 for each of 3 heads"],
  ["gpt2", "n_ctx", 64, "n_positions 32"],
  ["gpt2", "n_inner", "64", "an integer from 1 to 1048576"],
  ["gpt2", "layer_norm_epsilon", 0, "a number above 0 and at most 0.1"],
  ["gpt2", "vocab_size", 0, "an integer from 1 to 16777216"],
];

for (const [type, key, value, expected] of REFUSED) {
  Deno.test(`${type} is refused for ${key} ${JSON.stringify(value)}`, () => {
    assert.throws(() => parse(type, { [key]: value }), (error) => {
      assert(error instanceof ConfigError);
      // The heads that GPT-2's width is divided by are named beside the width.
      const named = key === "n_head" ? "n_embd" : key;
      const found = JSON.stringify(key === "n_head" ? 16 : value);
      assert.equal(error.message, `Cannot read ${FILE}: ${named}: expected ${expected}, found ${found}`);
      return true;
    });
  });
}

for (const type of ["yarn", "longrope", "su", "linear"]) {
  Deno.test(`phi3 is refused for RoPE of type ${type}`, () => {
    assert.throws(() => parse("phi3", { rope_scaling: { type, factor: 2 } }), {
      name: "ConfigError",
      message:
        `Cannot read ${FILE}: rope_scaling.type: expected "default" (others are not supported), found "${type}"`,
    });
  });
}

for (const type of TYPES) {
  Deno.test(`${type}: a written configuration reads back the same, in each element type`, () => {
    const scaling = { rope_scaling: { rope_type: "linear", factor: 2 } };
    const given = {
      ...(type === "gpt2" || type === "phi3" ? {} : scaling),
      ...{ bos_token_id: null, eos_token_id: [2, 3], pad_token_id: 4 },
      ...{ initializer_range: 0.5, tie_word_embeddings: type !== "gpt2" },
      ...WRITTEN[type],
    };
    const config = parse(type, given);
    for (const [dtype, name] of [["f32", "float32"], ["f16", "float16"], ["bf16", "bfloat16"]] as const) {
      const json = architectureOf(config).configJson({ dtype });
      assert.equal(json.torch_dtype, name);
      assert.deepEqual({ ...json, ...LEAST[type], ...given, model_type: type }, json);
      assert.deepEqual(Object.keys(json), Object.keys(json).toSorted());
      assert.deepEqual(parseModelConfig(JSON.parse(JSON.stringify(json)), { file: FILE }), config);
    }
  });

  Deno.test(`${type}: parameters in groups have rows of one length, and each is a parameter`, () => {
    const { shapes, groups, embedding, head } = architectureOf(parse(type));
    for (const group of groups) {
      const rows = group.map((name) => shapes.get(name)!.slice(1).join());
      assert.equal(new Set(rows).size, 1, group.join());
      assert.ok(group.length > 1);
    }
    for (const name of [embedding, head]) assert.deepEqual(shapes.get(name), [16, 16]);
  });

  Deno.test(`${type}: fresh norms are 1, biases 0, matrices random, what writes to the residual stream smaller`, () => {
    const { shapes, initial } = architectureOf(parse(type));
    for (const [name, shape] of shapes) {
      const found = initial(name, shape);
      const writes = /(o_proj|down_proj|c_proj)\.weight$/.test(name);
      const expected = name.endsWith(".bias")
        ? { value: 0 }
        : shape.length === 1
        ? { value: 1 }
        : { std: writes ? 0.02 / 2 : 0.02 };
      assert.deepEqual(found, expected, name);
    }
  });
}

Deno.test("a window of tokens limits the length of sequences, where any layer has one", () => {
  const positions = (...args: Parameters<typeof parse>) =>
    architectureOf(parse(...args)).dimensions.positions;
  assert.equal(positions("mistral"), 32);
  assert.equal(positions("mistral", { sliding_window: 8 }), 8);
  assert.equal(positions("mistral", { sliding_window: 64 }), 32);
  assert.equal(positions("phi3", { sliding_window: 9 }), 9);
  const window = { sliding_window: 8, use_sliding_window: true };
  for (const type of ["qwen2", "qwen3"] as const) {
    assert.equal(positions(type, { ...window, use_sliding_window: false }), 32);
    assert.equal(positions(type, window), 32); // of layers from 28, and there are two
    assert.equal(positions(type, { ...window, max_window_layers: 1 }), 8);
    assert.equal(positions(type, { ...window, max_window_layers: 2 }), 32);
  }
});

Deno.test("dynamic RoPE allows longer sequences when asked, not by default", () => {
  const { dimensions } = architectureOf(parse("llama", { rope_scaling: { type: "dynamic", factor: 2.5 } }));
  assert.deepEqual([dimensions.positions, dimensions.mostPositions], [32, 80]);
});

/** Sizes that published models have, and how many parameters they are known to have. */
const KNOWN: [name: string, parameters: number, positions: number, json: Record<string, unknown>][] = [
  ["Qwen3-0.6B", 596_049_920, 40960, {
    ...{ model_type: "qwen3", hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 28 },
    ...{ num_attention_heads: 16, num_key_value_heads: 8, head_dim: 128, vocab_size: 151936 },
    ...{ attention_bias: false, max_window_layers: 28, sliding_window: null, use_sliding_window: false },
    ...{ max_position_embeddings: 40960, rope_theta: 1000000, rope_scaling: null, tie_word_embeddings: true },
  }],
  ["Mistral-Nemo-Base-2407", 12_247_782_400, 128000, {
    ...{ model_type: "mistral", hidden_size: 5120, intermediate_size: 14336, num_hidden_layers: 40 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128, vocab_size: 131072 },
    ...{ max_position_embeddings: 128000, rope_theta: 1000000, sliding_window: null },
  }],
  ["Phi-3-mini-4k-instruct", 3_821_079_552, 2047, {
    ...{ model_type: "phi3", hidden_size: 3072, intermediate_size: 8192, num_hidden_layers: 32 },
    ...{ num_attention_heads: 32, num_key_value_heads: 32, vocab_size: 32064, sliding_window: 2047 },
    ...{ max_position_embeddings: 4096, original_max_position_embeddings: 4096, rope_scaling: null },
  }],
];

for (const [name, parameters, positions, json] of KNOWN) {
  Deno.test(`${name} has ${parameters} parameters`, () => {
    const { shapes, dimensions } = architectureOf(parseModelConfig(json, { file: FILE }));
    assert.equal([...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0), parameters);
    assert.equal(dimensions.positions, positions);
  });
}

Deno.test("absent keys get the defaults of transformers", () => {
  const { head_dim: _, ...qwen3 } = LEAST.qwen3;
  const config = parseModelConfig({ model_type: "qwen3", ...qwen3 }, { file: FILE });
  assert.equal((config as { head_dim: number }).head_dim, 128);
  const gpt2 = parseModelConfig({ model_type: "gpt2", vocab_size: 50257 }, { file: FILE });
  const { n_embd, n_layer, n_head, n_positions, bos_token_id, tie_word_embeddings } = gpt2 as Gpt2Config;
  assert.deepEqual([n_embd, n_layer, n_head, n_positions, bos_token_id, tie_word_embeddings], [
    ...[768, 12, 12, 1024, 50256, true],
  ]);
});

/** Writes a checkpoint of these shapes and checks it; a tensor's elements all are its number in the map. */
async function check(config: ModelConfig, shapes: ReadonlyMap<string, readonly number[]>): Promise<string> {
  const path = Deno.makeTempFileSync({ suffix: ".safetensors" });
  const tensors = [...shapes].map(([name, shape], index) => ({
    name,
    shape,
    data: () => new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(index),
  }));
  try {
    await writeSafetensors(path, tensors, { dtype: "f32" });
    using file = await openSafetensors(path);
    await checkWeights(file, architectureOf(config));
    return "accepted";
  } catch (error) {
    assert(error instanceof CheckpointError, String(error));
    return error.message.slice(`Cannot read ${path}: `.length);
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("a GPT-2 is accepted with and without the prefix of a model with a head, not with a mixture", async () => {
  const config = parse("gpt2");
  const { shapes } = architectureOf(config);
  const plain = (name: string) => name.replace(/^transformer\./, "");
  const bare = new Map([...shapes].map(([name, shape]) => [plain(name), shape]));
  const mask = [1, 1, 32, 32];
  assert.equal(await check(config, shapes), "accepted");
  assert.equal(await check(config, new Map([...shapes, ["transformer.h.0.attn.bias", mask]])), "accepted");
  assert.equal(await check(config, bare), "accepted");
  assert.equal(
    await check(config, new Map([...bare, ["h.1.attn.bias", mask], ["h.0.attn.masked_bias", []]])),
    "accepted",
  );
  assert.equal(
    await check(config, new Map([...bare, ["transformer.ln_f.weight", [16]]])),
    'tensor "transformer.wte.weight": expected shape [16, 16], found no such tensor',
  );
  assert.equal(
    await check(config, new Map([...bare, ["h.0.crossattention.c_attn.weight", [16, 32]]])),
    'tensor "h.0.crossattention.c_attn.weight": expected no such tensor by config.json, found one',
  );
  // All elements of a tensor are its number: the head is another matrix than the embedding.
  assert.match(
    await check(config, new Map([...bare, ["lm_head.weight", [16, 16]]])),
    /^tensor "lm_head.weight": expected the values of wte.weight, as tie_word_embeddings is true, found other/,
  );
});

testWithSharedData(
  "the names of another project's GPT-2 are known, whose heads are too small for attention",
  async () => {
    const folder = join(SHARED_DATA, "weights/tiny-gpt2-lm-buddy");
    const json = JSON.parse(Deno.readTextFileSync(join(folder, "config.json")));
    const fitting = parseModelConfig({ ...json, n_embd: 4 }, { file: FILE }) as Gpt2Config;
    using file = await openSafetensors(join(folder, "model.safetensors"));
    await checkWeights(file, gpt2Architecture({ ...fitting, n_embd: 2 }));
  },
);
