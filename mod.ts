/**
 * Keel: preference training of language models on WebGPU, in Deno. Open a device, load a model, build a batch, compute
 * a loss, backward, step, generate.
 *
 * @example Train a tiny model with DPO and SPO's penalty, on pairs that it makes itself
 * ```ts
 * import {
 *   characterTokenizerFiles, createModel, createRandom, createTokenizer, encodePairs, ensureAdapter, generate,
 *   initializeModel, openGpu, PAIR_LOSSES, parseModelConfig, preferenceObjective, referenceLogps, spoPenaltyAt,
 *   parseSpoOptions, train,
 * } from "./mod.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tokenizer = createTokenizer(characterTokenizerFiles("abc", { eos: "$" }), { source: "example" });
 * const config = parseModelConfig({
 *   model_type: "llama", vocab_size: tokenizer.vocabSize, hidden_size: 16, intermediate_size: 32,
 *   num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16,
 * }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true });
 * initializeModel(model, createRandom(1));
 *
 * const records = Array.from({ length: 8 }, (_, index) => ({
 *   prompt: "ab", chosen: "c", rejected: "a", source: { file: "example", index },
 * }));
 * const { pairs } = encodePairs(records, { tokenizer, vocabSize: config.vocab_size, maxLength: 16 });
 * const spo = parseSpoOptions({ solver: "penalty" });
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
 * const [answer] = await generate(model, [tokenizer.encode("ab")], { maxNewTokens: 1 });
 * if (tokenizer.decode(answer) !== "c") throw new Error("it learned to prefer c");
 * ```
 *
 * @example The same step by hand: batch, forward, backward, update, one number back
 * ```ts
 * import {
 *   characterTokenizerFiles, createModel, createMetricsRing, createOptimizer, createRandom, createTokenizer,
 *   encodeCompletions, ensureAdapter, fromHost, initializeModel, batchTokenLogps, openGpu, packSequences,
 *   parseModelConfig, scaledSum, Tape, uploadBatch,
 * } from "./mod.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tokenizer = createTokenizer(characterTokenizerFiles("abc", { eos: "$" }), { source: "example" });
 * const config = parseModelConfig({
 *   model_type: "llama", vocab_size: tokenizer.vocabSize, hidden_size: 16, intermediate_size: 32,
 *   num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16,
 * }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true });
 * initializeModel(model, createRandom(1));
 * using optimizer = createOptimizer(model.parameters, {
 *   beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1,
 * });
 * using ring = createMetricsRing(gpu, 1);
 * const one = fromHost(gpu, new Float32Array([1]), { shape: [1] });
 * const examples = [{ prompt: "ab", completion: "c", source: { file: "example", index: 0 } }];
 * const options = { tokenizer, vocabSize: config.vocab_size, maxLength: 16 };
 * const batch = packSequences(encodeCompletions(examples, options).completions);
 * const losses: number[] = [];
 * for (let step = 0; step < 10; step++) {
 *   model.parameters.zeroGradients();
 *   using tape = new Tape(gpu);
 *   const logps = batchTokenLogps(model, uploadBatch(model, batch));
 *   const metric = { metrics: ring.tensor, index: 0, accumulate: false };
 *   const loss = scaledSum(logps, { scale: -1 / logps.shape[0], metric });
 *   tape.backward([{ tensor: loss, gradient: one }]);
 *   optimizer.step(1e-2, ring.gradNorm(0));
 *   losses.push((await ring.read(1, ["loss"]))[0].loss); // one submit and one await
 * }
 * if (!(losses[9] < losses[0])) throw new Error("the loss goes down");
 * ```
 * @module
 */
export * from "./engine/mod.ts";
export * from "./train/mod.ts";
