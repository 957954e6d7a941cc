/**
 * Keel: preference training of language models on WebGPU, in Deno. Open a device, load a model, build a batch, compute
 * a loss, backward, step, generate.
 *
 * @example Train a tiny model with DPO and SPO's penalty, on pairs that it makes itself
 * ```ts
 * import {
 *   characterTokenizerFiles, createLlama, createRandom, createTokenizer, encodePairs, ensureAdapter, greedyDecode,
 *   initializeModel, openGpu, PAIR_LOSSES, parseModelConfig, preferenceObjective, referenceLogps, spoPenaltyAt,
 *   spoSchema, train,
 * } from "./mod.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tokenizer = createTokenizer(characterTokenizerFiles("abc", { eos: "$" }), { source: "example" });
 * const config = parseModelConfig({
 *   model_type: "llama", vocab_size: tokenizer.vocabSize, hidden_size: 16, intermediate_size: 32,
 *   num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16,
 * }, { file: "example" });
 * using model = createLlama(gpu, config, { trainable: true });
 * initializeModel(model, createRandom(1));
 *
 * const records = Array.from({ length: 8 }, (_, index) => ({
 *   prompt: "ab", chosen: "c", rejected: "a", source: { file: "example", index },
 * }));
 * const { pairs } = encodePairs(records, { tokenizer, vocabSize: config.vocab_size, maxLength: 16 });
 * const spo = spoSchema.parse({ solver: "penalty" });
 * using objective = preferenceObjective(model, {
 *   pairs,
 *   reference: await referenceLogps(model, pairs),
 *   loss: PAIR_LOSSES.dpo.resolve({ beta: 0.1 }),
 *   spoAt: (step) => spoPenaltyAt(spo, step, 20),
 *   lambda: spo.lambda,
 * });
 * await train(objective, {
 *   optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
 *   schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 20 },
 *   batchSize: 8, seed: 0, logEvery: 10,
 *   onLog: (record) => { if (!Number.isFinite(Number(record.loss))) throw new Error("not a loss"); },
 * });
 * const [answer] = await greedyDecode(model, [tokenizer.encode("ab")], { maxNewTokens: 1 });
 * if (tokenizer.decode(answer) !== "c") throw new Error("it learned to prefer c");
 * ```
 * @module
 */
export * from "./engine/mod.ts";
export * from "./train/mod.ts";
