import assert from "node:assert/strict";
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../../train/errors.ts";
import { parseModelConfig, readModelConfig } from "../../train/models/config.ts";
import { llamaConfigJson } from "../../train/models/llama_config.ts";
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
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
};
const parse = (changes: Record<string, unknown> = {}) =>
  parseModelConfig({ ...TINY, ...changes }, { file: FILE });

Deno.test("absent keys get the defaults of transformers", () => {
  assert.deepEqual(parse(), {
    ...TINY,
    num_key_value_heads: 4,
    head_dim: 2,
    hidden_act: "silu",
    max_position_embeddings: 2048,
    initializer_range: 0.02,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: null,
  });
});

const OUT_OF_RANGE = "not supported";
const REFUSED: [key: string, value: unknown, expected: string, found?: string][] = [
  ["quantization_config", { quant_method: "awq" }, "none", "awq: quantized weights cannot be trained"],
  ["quantization_config", {}, "none", "one: quantized weights cannot be trained"],
  ["model_type", undefined, '"llama"', "nothing"],
  ["model_type", "mamba", '"llama"'],
  ["model_type", ["llama"], '"llama"'],
  ["attention_bias", true, `false (other values are ${OUT_OF_RANGE})`],
  ["mlp_bias", true, `false (other values are ${OUT_OF_RANGE})`],
  ["attention_dropout", 0.1, `0 (other values are ${OUT_OF_RANGE})`],
  ["pretraining_tp", 2, `1 (other values are ${OUT_OF_RANGE})`],
  ["rope_scaling", { rope_type: "llama3" }, `null (other values are ${OUT_OF_RANGE})`],
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
  ["hidden_size", 12, "an even number of units for each of 4 heads, as there is no head_dim"],
  ["hidden_size", 10, "an even number of units for each of 4 heads, as there is no head_dim"],
  ["intermediate_size", 1.5, "an integer from 1 to 1048576"],
  ["num_hidden_layers", -1, "an integer from 1 to 4096"],
  ["num_attention_heads", null, "an integer from 1 to 16384"],
  ["num_key_value_heads", 3, "a divisor of num_attention_heads 4"],
  ["num_key_value_heads", 8, "a divisor of num_attention_heads 4"],
  ["num_key_value_heads", 0, "an integer from 1 to 16384"],
  ["head_dim", 3, "an even integer: RoPE turns pairs"],
  ["head_dim", 0, "an integer from 2 to 16384"],
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
  ["rope_parameters.rope_type", "yarn", '"default" (scaled RoPE is not supported)'],
];

for (const [key, value, expected, found] of REFUSED) {
  const shown = found ??
    (Array.isArray(value)
      ? `[${value.join(", ")}]`
      : value === Infinity
      ? "Infinity"
      : JSON.stringify(value));
  const short = Array.isArray(value) && typeof value[0] === "string" ? '["llama"]' : shown;
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
    `tensor "${name}": expected shape [4, 8], found no such tensor`,
  );
  assert.equal(
    await checkWith((shapes) => shapes.delete("lm_head.weight")),
    'tensor "lm_head.weight": expected shape [16, 8], found no such tensor',
  );
  assert.equal(
    await checkWith((shapes) => shapes.set(name, [8, 4])),
    `tensor "${name}": expected shape [4, 8] by config.json, found [8, 4]`,
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
  assert.equal(await withHead([16, 8]), "accepted");
  assert.equal(
    await withHead([16, 9]),
    'tensor "lm_head.weight": expected shape [16, 8] by config.json, found [16, 9]',
  );
  const other = new Float32Array(128);
  other[127] = 1;
  assert.equal(
    await withHead([16, 8], () => other),
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
  ["configs/gpt2.config.json", 'model_type: expected "llama", found "gpt2"'],
  [
    "configs/gpt2-gptq-quantized.config.json",
    "quantization_config: expected none, found gptq: quantized weights cannot be trained",
  ],
  [
    "configs/llama-3.2-1b.config.json",
    'rope_scaling: expected null (other values are not supported), found {"factor":32,"high_freq_factor":4,"low_freq_factor":1,"original_max_position_...',
  ],
  ["configs/qwen2.5-0.5b-instruct.config.json", 'model_type: expected "llama", found "qwen2"'],
  ["weights/tiny-gpt2-lm-buddy/config.json", 'model_type: expected "llama", found "gpt2"'],
];

for (const [name, refusal] of PUBLISHED) {
  testWithSharedData(`${name} is ${refusal ? "refused by name" : "accepted"}`, () => {
    const file = join(SHARED_DATA, name);
    const read = () => parseModelConfig(JSON.parse(Deno.readTextFileSync(file)), { file });
    if (refusal) assert.throws(read, { name: "ConfigError", message: `Cannot read ${file}: ${refusal}` });
    else assert.equal(read().model_type, "llama");
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
      checkWeights(file, architectureOf({ ...config, intermediate_size: 100 })),
      /mlp\.gate_proj\.weight": expected shape/,
    );
  });
}

testWithSharedData("SmolLM2 has 134,515,008 parameters", () => {
  const file = join(SHARED_DATA, "configs/smollm2-135m.config.json");
  const shapes = llamaParameterShapes(parseModelConfig(JSON.parse(Deno.readTextFileSync(file)), { file }));
  const total = [...shapes.values()].reduce(
    (sum, shape) => sum + shape.reduce((product, size) => product * size, 1),
    0,
  );
  assert.equal(total, 134_515_008);
});
