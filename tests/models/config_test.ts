import assert from "node:assert/strict";
import { join } from "node:path";
import { sizeOf } from "../../engine/shape.ts";
import { CheckpointError, ConfigError } from "../../train/errors.ts";
import type { Dimensions } from "../../train/models/architecture.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { readModelConfig } from "../../train/models/config_file.ts";
import { type LlamaConfig, llamaConfigJson } from "../../train/models/llama_config.ts";
import { checkWeights } from "../../train/models/check_weights.ts";
import { architectureOf } from "../../train/models/registry.ts";
import { llamaParameterShapes } from "../../train/models/llama_parameters.ts";
import { openSafetensors } from "../../train/models/safetensors.ts";
import { type TensorSource, writeSafetensors } from "../../train/models/safetensors_write.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

const FOLDER = Deno.makeTempDirSync({ prefix: "keel-config-" });
globalThis.addEventListener("unload", () => Deno.removeSync(FOLDER, { recursive: true }));

const FILE = "folder/config.json";
const TINY = {
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
};
const parse = (changes: Record<string, unknown> = {}) =>
  parseModelConfig({ ...TINY, ...changes }, { file: FILE }) as LlamaConfig;

Deno.test("absent keys get the defaults of transformers", () => {
  assert.deepEqual(parse(), {
    ...TINY,
    num_key_value_heads: 4,
    head_dim: 4,
    hidden_act: "silu",
    max_position_embeddings: 2048,
    initializer_range: 0.02,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    rope_scaling: null,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: null,
  });
});

const OUT_OF_RANGE = "not supported";
const MODEL_TYPES = '"llama" or "mistral" or "qwen2" or "qwen3" or "gpt2" or "phi3"';
const HEAD_DIM = "a multiple of 4 from 4 to 256";
const ROPE_TYPES = '"default", "linear", "dynamic", "llama3" (others are not supported)';
const FACTOR = "a number from 1 to 1000000";
const REFUSED: [key: string, value: unknown, expected: string, found?: string][] = [
  ["quantization_config", { quant_method: "awq" }, "none", "awq: quantized weights cannot be trained"],
  ["quantization_config", {}, "none", "one: quantized weights cannot be trained"],
  ["model_type", undefined, MODEL_TYPES, "nothing"],
  ["model_type", "mamba", MODEL_TYPES],
  ["model_type", "gemma2", MODEL_TYPES],
  ["model_type", ["llama"], MODEL_TYPES],
  ["attention_bias", 1, "true or false"],
  ["mlp_bias", "no", "true or false"],
  ["attention_dropout", 0.1, `0 (other values are ${OUT_OF_RANGE})`],
  ["pretraining_tp", 2, `1 (other values are ${OUT_OF_RANGE})`],
  ["rope_scaling", [], "an object", "[]"],
  ["rope_scaling.rope_type", "yarn", ROPE_TYPES],
  ["rope_scaling.rope_type", "longrope", ROPE_TYPES],
  ["rope_scaling.type", "su", ROPE_TYPES],
  ["clip_qkv", 8, `null (other values are ${OUT_OF_RANGE})`],
  ["kv_lora_rank", 512, `null (other values are ${OUT_OF_RANGE})`],
  ["layer_types", ["full_attention"], '2 of "full_attention"', '["full_attention"]'],
  ["rope_interleaved", true, `false (other values are ${OUT_OF_RANGE})`],
  ["partial_rotary_factor", 0.5, `1 (other values are ${OUT_OF_RANGE})`],
  ["sliding_window", 4096, `null (other values are ${OUT_OF_RANGE})`],
  ["attn_logit_softcapping", 50, `null (other values are ${OUT_OF_RANGE})`],
  ["final_logit_softcapping", 30, `null (other values are ${OUT_OF_RANGE})`],
  ["use_qk_norm", true, `false (other values are ${OUT_OF_RANGE})`],
  ["qk_norm", true, `false (other values are ${OUT_OF_RANGE})`],
  ["embedding_multiplier", 12, `1 (other values are ${OUT_OF_RANGE})`],
  ["attention_multiplier", 0.1, `null (other values are ${OUT_OF_RANGE})`],
  ["residual_multiplier", 0.2, `1 (other values are ${OUT_OF_RANGE})`],
  ["logits_scaling", 8, `1 (other values are ${OUT_OF_RANGE})`],
  ["num_local_experts", 8, `null (other values are ${OUT_OF_RANGE})`],
  ["num_experts", 8, `null (other values are ${OUT_OF_RANGE})`],
  ["hidden_act", "gelu", '"silu"'],
  ["hidden_act", null, '"silu"'],
  ["vocab_size", undefined, "an integer from 1 to 16777216", "nothing"],
  ["vocab_size", 0, "an integer from 1 to 16777216"],
  ["vocab_size", 1e9, "an integer from 1 to 16777216"],
  ["hidden_size", "64", "an integer from 1 to 262144"],
  ["hidden_size", undefined, "an integer from 1 to 262144", "nothing"],
  ["hidden_size", 8, "a multiple of 4 up to 256 for each of 4 heads, as there is no head_dim"],
  ["hidden_size", 10, "a multiple of 4 up to 256 for each of 4 heads, as there is no head_dim"],
  ["hidden_size", 2048, "a multiple of 4 up to 256 for each of 4 heads, as there is no head_dim"],
  ["intermediate_size", 1.5, "an integer from 1 to 1048576"],
  ["num_hidden_layers", -1, "an integer from 1 to 4096"],
  ["num_attention_heads", null, "an integer from 1 to 16384"],
  ["num_key_value_heads", 3, "a divisor of num_attention_heads 4"],
  ["num_key_value_heads", 8, "a divisor of num_attention_heads 4"],
  ["num_key_value_heads", 0, "an integer from 1 to 16384"],
  ["head_dim", 6, HEAD_DIM],
  ["head_dim", 0, HEAD_DIM],
  ["head_dim", 260, HEAD_DIM],
  ["max_position_embeddings", 2 ** 40, "an integer from 1 to 67108864"],
  ["rms_norm_eps", 0, "a number above 0 and at most 0.1"],
  ["rms_norm_eps", "1e-5", "a number above 0 and at most 0.1"],
  ["rope_theta", -1, "a number above 0 and at most 1000000000000"],
  ["rope_theta", Infinity, "a number above 0 and at most 1000000000000"],
  ["initializer_range", 2, "a number above 0 and at most 1"],
  ["tie_word_embeddings", 1, "true or false"],
  ["bos_token_id", 16, "an id below vocab_size 16"],
  ["eos_token_id", [2, 16], "an id below vocab_size 16"],
  ["eos_token_id", [], "a token id or a list of them"],
  ["eos_token_id", "</s>", "a token id or a list of them"],
  ["pad_token_id", -2, "an integer from 0 to 16777216"],
  ["pad_token_id", "<pad>", "a token id or null"],
  ["rope_parameters.rope_type", "yarn", ROPE_TYPES],
  ["rope_parameters.partial_rotary_factor", 0.5, "1 (rotating a part of a head is not supported)"],
  ["rope_parameters.full_attention", { rope_theta: 1e4 }, "no such key (it is not supported)"],
];

for (
  const [scaling, key, expected, found] of [
    [{ rope_type: "linear" }, "factor", FACTOR, "nothing"],
    [{ rope_type: "linear", factor: 0.5 }, "factor", FACTOR, "0.5"],
    [{ type: "dynamic", factor: "2" }, "factor", FACTOR, '"2"'],
    [{ type: "dynamic", factor: 2, alpha: 3 }, "alpha", "no such key (it is not supported)", "3"],
    [{ type: "linear", rope_type: "dynamic", factor: 2 }, "type", 'rope_type\'s "dynamic"', '"linear"'],
    [
      { rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 4 },
      ...["high_freq_factor", "a number above low_freq_factor 4", "4"],
    ],
    [
      { rope_type: "llama3", factor: 8, high_freq_factor: 4 },
      ...["low_freq_factor", "a number above 0 and at most 1000000", "nothing"],
    ],
    [
      { rope_type: "linear", factor: 2, attention_factor: 2 },
      "attention_factor",
      "1 (other values are not supported)",
      "2",
    ],
  ] as [Record<string, unknown>, string, string, string][]
) {
  Deno.test(`scaled RoPE is refused for ${JSON.stringify(scaling)}`, () => {
    for (const under of ["rope_scaling", "rope_parameters"]) {
      assert.throws(() => parse({ [under]: scaling }), {
        name: "ConfigError",
        message: `Cannot read ${FILE}: ${under}.${key}: expected ${expected}, found ${found}`,
      });
    }
  });
}

for (const [key, value, expected, found] of REFUSED) {
  const shown = found ??
    (Array.isArray(value)
      ? `[${value.join(", ")}]`
      : value === Infinity
      ? "Infinity"
      : JSON.stringify(value));
  const short = Array.isArray(value) && typeof value[0] === "string" ? JSON.stringify(value) : shown;
  Deno.test(`a configuration is refused for ${key} ${found ?? short}`, () => {
    const [outer, inner] = key.split(".");
    assert.throws(() => parse({ [outer]: inner ? { [inner]: value } : value }), (error) => {
      assert(error instanceof ConfigError);
      assert.equal(error.message, `Cannot read ${FILE}: ${key}: expected ${expected}, found ${short}`);
      return true;
    });
  });
}

Deno.test("neutral values of keys that are not supported are accepted, and keys that only describe", () => {
  const neutral = {
    ...{
      attention_bias: false,
      pretraining_tp: 1,
      rope_scaling: null,
      rope_interleaved: false,
      attention_dropout: 0.0,
    },
    ...{ quantization_config: null, sliding_window: 4096, use_sliding_window: false, pad_token_id: -1 },
    ...{ transformers_version: "4.48.0", is_llama_config: true, torch_dtype: "bfloat16", use_cache: true },
  };
  assert.deepEqual(parse(neutral), parse());
});

Deno.test("rope_parameters of transformers 5 stand for rope_theta, and must not contradict it", () => {
  assert.equal(parse({ rope_parameters: { rope_theta: 5e5, rope_type: "default" } }).rope_theta, 5e5);
  assert.equal(parse({ rope_theta: 5e5, rope_parameters: { rope_theta: 5e5 } }).rope_theta, 5e5);
  assert.throws(() => parse({ rope_theta: 1e4, rope_parameters: { rope_theta: 5e5 } }), {
    name: "ConfigError",
    message: `Cannot read ${FILE}: rope_parameters.rope_theta: expected rope_theta's 10000, found 500000`,
  });
});

Deno.test("scaled RoPE is read in both layouts and both spellings, which must not contradict each other", () => {
  const linear = { rope_type: "linear", factor: 2 };
  assert.deepEqual(parse({ rope_scaling: { type: "linear", factor: 2 } }).rope_scaling, linear);
  assert.deepEqual(parse({ rope_scaling: { ...linear, type: "linear" } }).rope_scaling, linear);
  const newer = parse({ rope_parameters: { ...linear, rope_theta: 5e5, partial_rotary_factor: 1 } });
  assert.deepEqual([newer.rope_scaling, newer.rope_theta], [linear, 5e5]);
  assert.deepEqual(parse({ rope_scaling: linear, rope_parameters: linear }).rope_scaling, linear);
  assert.equal(parse({ rope_scaling: { rope_type: "default" } }).rope_scaling, null);
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  assert.deepEqual(parse({ rope_scaling: llama3, max_position_embeddings: 512 }).rope_scaling, {
    ...llama3,
    original_max_position_embeddings: 512,
  });
  assert.throws(() => parse({ rope_scaling: linear, rope_parameters: { ...linear, factor: 4 } }), {
    name: "ConfigError",
    message: `Cannot read ${FILE}: rope_scaling: expected what rope_parameters says, found ` +
      '{"rope_type":"linear","factor":2}',
  });
});

Deno.test("what is no object is refused, and a missing or broken file by name", async () => {
  assert.throws(() => parseModelConfig([], { file: FILE }), {
    message: `Cannot read ${FILE}: expected an object, found []`,
  });
  assert.throws(() => parseModelConfig(null, { file: FILE }), {
    message: `Cannot read ${FILE}: expected an object, found null`,
  });
  const file = join(FOLDER, "config.json");
  const missing = { name: "ConfigError", message: `Cannot read ${file}: expected a file, found nothing` };
  await assert.rejects(readModelConfig(FOLDER), missing);
  Deno.writeTextFileSync(file, '{"model_type": "llama",}');
  await assert.rejects(readModelConfig(FOLDER), (error) => {
    assert(error instanceof ConfigError);
    return error.message.startsWith(`Cannot read ${file}: `) && /JSON/.test(error.message);
  });
  Deno.writeTextFileSync(file, JSON.stringify(TINY));
  assert.deepEqual(await readModelConfig(FOLDER), parse());
});

Deno.test("a written configuration reads back the same", () => {
  const config = parse({
    tie_word_embeddings: true,
    rope_theta: 5e5,
    rope_scaling: { type: "dynamic", factor: 2 },
    attention_bias: true,
    eos_token_id: [2, 3],
    num_key_value_heads: 2,
    bos_token_id: null,
  });
  const json = llamaConfigJson(config, { dtype: "bf16" });
  assert.equal(json.torch_dtype, "bfloat16");
  assert.deepEqual(parseModelConfig(JSON.parse(JSON.stringify(json)), { file: FILE }), config);
});

/** Writes a checkpoint with the shapes of a configuration, changed as told, and checks it. */
async function checkWith(
  change: (shapes: Map<string, number[]>) => void,
  options: { tied?: boolean; values?: TensorSource["data"] } = {},
) {
  const config = parse({ tie_word_embeddings: options.tied ?? false, num_key_value_heads: 2 });
  const shapes = llamaParameterShapes(config);
  change(shapes);
  const path = join(FOLDER, "model.safetensors");
  const tensors = [...shapes].map(([name, shape]): TensorSource => ({
    name,
    shape,
    data: (name === "lm_head.weight" ? options.values : undefined) ??
      (() => new Float32Array(shape.reduce((product, size) => product * size, 1))),
  }));
  await writeSafetensors(path, tensors, { dtype: "f32" });
  using file = await openSafetensors(path);
  try {
    await checkWeights(file, architectureOf(config));
  } catch (error) {
    assert(error instanceof CheckpointError, String(error));
    assert(error.message.startsWith(`Cannot read ${path}: `), error.message);
    return error.message.slice(`Cannot read ${path}: `.length);
  }
  return "accepted";
}

Deno.test("a checkpoint must hold the parameters of config.json and no others", async () => {
  const name = "model.layers.1.self_attn.k_proj.weight";
  assert.equal(await checkWith(() => {}), "accepted");
  assert.equal(
    await checkWith((shapes) => shapes.delete(name)),
    `tensor "${name}": expected shape [8, 16], found no such tensor`,
  );
  assert.equal(
    await checkWith((shapes) => shapes.delete("lm_head.weight")),
    'tensor "lm_head.weight": expected shape [16, 16], found no such tensor',
  );
  assert.equal(
    await checkWith((shapes) => shapes.set(name, [16, 8])),
    `tensor "${name}": expected shape [8, 16] by config.json, found [16, 8]`,
  );
  for (
    const extra of [
      "model.layers.2.input_layernorm.weight",
      "model.layers.0.self_attn.q_proj.bias",
      "rotary_emb.inv_freq",
    ]
  ) {
    assert.equal(
      await checkWith((shapes) => shapes.set(extra, [2])),
      `tensor "${extra}": expected no such tensor by config.json, found one`,
    );
  }
  for (const harmless of ["model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]) {
    assert.equal(await checkWith((shapes) => shapes.set(harmless, [1])), "accepted");
  }
});

Deno.test("a stored head beside a tied embedding must equal it", async () => {
  const withHead = (shape: number[], values?: TensorSource["data"]) =>
    checkWith((shapes) => shapes.set("lm_head.weight", shape), { tied: true, values });
  assert.equal(await checkWith(() => {}, { tied: true }), "accepted");
  assert.equal(await withHead([16, 16]), "accepted");
  assert.equal(
    await withHead([16, 9]),
    'tensor "lm_head.weight": expected shape [16, 16] by config.json, found [16, 9]',
  );
  const other = new Float32Array(256);
  other[255] = 1;
  assert.equal(
    await withHead([16, 16], () => other),
    'tensor "lm_head.weight": expected the values of model.embed_tokens.weight, as tie_word_embeddings is true, ' +
      "found other values between rows 0 and 16",
  );
});

Deno.test("a parameter of a type that is no weight is refused by name before loading", async () => {
  const config = parse();
  const path = join(FOLDER, "model.safetensors");
  const tensors = [...llamaParameterShapes(config)].map(([name, shape]) => ({
    name,
    shape,
    data: () => new Float32Array(shape.reduce((product, size) => product * size, 1)),
  }));
  await writeSafetensors(path, tensors, { dtype: "f16" });
  const bytes = Deno.readFileSync(path);
  const text = new TextDecoder("latin1").decode(bytes);
  const at = text.indexOf('"F16"', text.indexOf('"model.norm.weight"'));
  bytes.set(new TextEncoder().encode('"I16"'), at);
  Deno.writeFileSync(path, bytes);
  using file = await openSafetensors(path);
  await assert.rejects(checkWeights(file, architectureOf(config)), {
    name: "CheckpointError",
    message: `Cannot read ${path}: tensor "model.norm.weight", dtype: expected F32, F16 or BF16, found I16`,
  });
});

const PUBLISHED: [file: string, refusal: string | undefined][] = [
  ["configs/smollm2-135m.config.json", undefined],
  ["models/stories260K/config.json", undefined],
  ["weights/tiny-random-llama-bf16/config.json", undefined],
  ["configs/gpt2.config.json", undefined],
  [
    "configs/gpt2-gptq-quantized.config.json",
    "quantization_config: expected none, found gptq: quantized weights cannot be trained",
  ],
  ["configs/llama-3.2-1b.config.json", undefined],
  ["configs/qwen2.5-0.5b-instruct.config.json", undefined],
  [
    "weights/tiny-gpt2-lm-buddy/config.json",
    "n_embd: expected a multiple of 4 up to 256 for each of 1 heads, found 2",
  ],
];

/** Of published models, and how many parameters they are known to have. */
const SIZES: Record<string, [Partial<Dimensions>, number]> = {
  "configs/gpt2.config.json": [{ heads: 12, kvHeads: 12, headDim: 64, positions: 1024 }, 124_439_808],
  "configs/llama-3.2-1b.config.json": [
    { heads: 32, kvHeads: 8, headDim: 64, positions: 131072 },
    1_235_814_400,
  ],
  "configs/qwen2.5-0.5b-instruct.config.json": [
    { heads: 14, kvHeads: 2, headDim: 64, positions: 32768 },
    494_032_768,
  ],
  "configs/smollm2-135m.config.json": [
    { heads: 9, kvHeads: 3, headDim: 64, positions: 2048 },
    134_515_008,
  ],
  "models/stories260K/config.json": [{ heads: 8, kvHeads: 4, headDim: 8, positions: 512 }, 260_032],
  "weights/tiny-random-llama-bf16/config.json": [
    { heads: 4, kvHeads: 2, headDim: 24, positions: 2048 },
    187_872,
  ],
};

for (const [name, refusal] of PUBLISHED) {
  testWithSharedData(`${name} is ${refusal ? "refused by name" : "accepted"}`, () => {
    const file = join(SHARED_DATA, name);
    const read = () => parseModelConfig(JSON.parse(Deno.readTextFileSync(file)), { file });
    if (refusal) assert.throws(read, { name: "ConfigError", message: `Cannot read ${file}: ${refusal}` });
    else {
      const [dimensions, parameters] = SIZES[name];
      const { dimensions: found, shapes } = architectureOf(read());
      assert.deepEqual({ ...found, ...dimensions }, found);
      assert.equal([...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0), parameters);
    }
  });
}

for (
  const [folder, weights] of [["models/stories260K", "model"], [
    "weights/tiny-random-llama-bf16",
    "tiny_llama",
  ]]
) {
  testWithSharedData(`the weights of ${folder} are those of its config.json`, async () => {
    const config = await readModelConfig(join(SHARED_DATA, folder));
    using file = await openSafetensors(join(SHARED_DATA, folder, `${weights}.safetensors`));
    await checkWeights(file, architectureOf(config));
    await assert.rejects(
      checkWeights(file, architectureOf({ ...config, intermediate_size: 100 } as LlamaConfig)),
      /mlp\.gate_proj\.weight": expected shape/,
    );
  });
}
