import assert from "node:assert/strict";
import { parseRunConfig, resolveLoss } from "../../train/config.ts";
import { PAIR_LOSS_NAMES } from "../../train/losses/weighted_sum.ts";
import { ConfigError } from "../../train/errors.ts";

const SOURCE = { describe: (path: readonly string[]) => `<${path.join(".")}>` };

const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, SOURCE);

/** Settings -> what the message says after "Cannot use ". */
const REFUSED: [Record<string, unknown>, string][] = [
  [{ learningrate: 1 }, "<learningrate>: expected a known setting, found none of that name"],
  [
    { spo: { solver: "penalty", lamda: 1 } },
    "<spo.lamda>: expected a known setting, found none of that name",
  ],
  [{ batchSize: 0 }, "<batchSize>: expected more than 0, found 0"],
  [{ batchSize: 1.5 }, "<batchSize>: expected a value of type int, found 1.5"],
  [{ learningRate: -1 }, "<learningRate>: expected more than 0, found -1"],
  [{ learningRate: NaN }, "<learningRate>: expected a value of type number, found NaN"],
  [{ learningRate: "fast" }, '<learningRate>: expected a value of type number, found "fast"'],
  [{ labelSmoothing: 0.5 }, "<labelSmoothing>: expected less than 0.5, found 0.5"],
  [{ maxLength: 1 }, "<maxLength>: expected at least 2, found 1"],
  [{ seed: 2 ** 31 + 1 }, "<seed>: expected at most 2147483648, found 2147483649"],
  [{ adamBeta1: 1 }, "<adamBeta1>: expected less than 1, found 1"],
  [{ overwrite: "yes" }, '<overwrite>: expected a value of type boolean, found "yes"'],
  [{ csv: "yes" }, '<csv>: expected a value of type boolean, found "yes"'],
  [{ tensorboard: 1 }, "<tensorboard>: expected a value of type boolean, found 1"],
  [{ model: "" }, '<model>: expected a text that is not empty, found ""'],
  [
    { loss: "dpoo" },
    `<loss>: expected one of sft, ${PAIR_LOSS_NAMES.join(", ")}, or several joined by commas, found "dpoo" ` +
    "(did you mean dpo?)",
  ],
  [
    { loss: "dpo,sft", lossWeights: "1" },
    '<lossWeights>: expected 2 numbers above 0, joined by commas, found "1"',
  ],
  [{ loss: "sft", lossWeights: "1" }, "<lossWeights>: expected a pairwise loss, found sft"],
  [
    { loss: "exo_pair", labelSmoothing: 0 },
    "<labelSmoothing> with exo_pair: expected more than 0, found 0",
  ],
  [{ spo: { solver: "penalty", rho: -1 } }, "<spo.rho>: expected at least 0, found -1"],
  [
    { spo: { solver: "penalty", vStar: "first" } },
    '<spo.vStar>: expected initial or track or a value of type number, found "first"',
  ],
  [{ spo: 1 }, "<spo>: expected a value of type object, found 1"],
  // Options that the chosen loss does not read.
  [
    { loss: "hinge", labelSmoothing: 0.1 },
    "<labelSmoothing>: expected a loss that reads it (dpo, robust, exo_pair, aot, aot_unpaired, cpo), found hinge",
  ],
  [{ lengthNormalize: false }, "<lengthNormalize>: expected a loss that reads it (ipo), found dpo"],
  [
    { loss: "ipo", gammaBetaRatio: 1 },
    "<gammaBetaRatio>: expected a loss that reads it (simpo, alphapo, alphadpo), found ipo",
  ],
  [{ loss: "sft", beta: 1 }, "<beta>: expected a pairwise loss, found sft"],
  [{ loss: "sft", spo: { solver: "penalty" } }, "<spo>: expected a pairwise loss, found sft"],
  [
    { loss: "aot", useWeighting: true },
    "<useWeighting>: expected a loss of single pairs, found aot, which sorts the batch",
  ],
  [
    { loss: "dpo,aot_unpaired", useWeighting: true },
    "<useWeighting>: expected a loss of single pairs, found dpo,aot_unpaired, which sorts the batch",
  ],
  [{ loss: "sft", useWeighting: true }, "<useWeighting>: expected a pairwise loss, found sft"],
  [{ loss: "kto", useWeighting: true }, "<useWeighting>: expected a pairwise loss, found kto"],
  [{ loss: "sft", promptSharing: true }, "<promptSharing>: expected a pairwise loss, found sft"],
  [{ loss: "sft", ches: true }, "<ches>: expected a pairwise loss, found sft"],
  [{ dtype: "f16", ches: true }, "<ches>: expected f32, found dtype f16"],
  // What is left out at steps that are not finite.
  [{ onNonfinite: "go on" }, '<onNonfinite>: expected one of stop, skip, found "go on"'],
  [{ onNonfinite: "skip", maxNonfinite: 0 }, "<maxNonfinite>: expected more than 0, found 0"],
  [{ onNonfinite: "skip", maxNonfinite: 1.5 }, "<maxNonfinite>: expected a value of type int, found 1.5"],
  [{ maxNonfinite: 3 }, "<maxNonfinite>: expected onNonfinite skip beside it, found stop"],
  [
    { onNonfinite: "skip", dtype: "f16" },
    "<onNonfinite>: expected dtype f32, as loss scaling skips by itself, found f16",
  ],
  [
    { onNonfinite: "skip", spo: { solver: "penalty" } },
    "<onNonfinite>: expected no SPO solver, as its inner steps are not skipped, found penalty",
  ],
  // Options that the chosen way of SPO does not read.
  [{ spo: { lambda: 2 } }, unread("lambda", "solver penalty, unrolled or alternating")],
  [{ spo: { solver: "none", rho: 2 } }, unread("rho", "solver penalty, unrolled or alternating")],
  [spo({ lambdaEnd: 2 }), unread("lambdaEnd", "lambdaSchedule linear or geometric")],
  [spo({ lambdaSteps: 2 }), unread("lambdaSteps", "lambdaSchedule linear or geometric")],
  [spo({ dualRate: 2 }), unread("dualRate", "lambdaSchedule dual")],
  [spo({ epsilon: 2 }), unread("epsilon", "penalty hinge or quadratic, or lambdaSchedule dual")],
  [spo({ vStar: 1, vStarSteps: 3 }), unread("vStarSteps", 'vStar "initial"')],
  [spo({ margin: 1 }), unread("margin", "rho above 0")],
  [inner({ lambda: 1 }), unread("lambda", "solver penalty")],
  [inner({ penalty: "hinge" }), unread("penalty", "solver penalty")],
  [inner({ vStar: "track" }), unread("vStar", "solver penalty")],
  [inner({ epsilon: 1 }), unread("epsilon", "penalty hinge or quadratic, or lambdaSchedule dual")],
  [inner({ solver: "alternating", hypergradient: "hvp" }), unread("hypergradient", "solver unrolled")],
  [inner({ hvpEpsilon: 1 }), unread("hvpEpsilon", "hypergradient hvp")],
  [inner({ trackSteps: 1 }), unread("trackSteps", 'vStar "track"')],
  [spo({ trackEvery: 1 }), unread("trackEvery", 'vStar "track"')],
  [spo({ sftBatchSize: 4 }), unread("sftBatchSize", "sftData")],
  [
    spo({ innerLearningRate: 1 }),
    unread("innerLearningRate", 'solver unrolled or alternating, or vStar "track"'),
  ],
  [spo({ solver: "unrolled" }), unread("solver", "innerLearningRate with it, the lower level's step")],
  [spo({ vStar: "track" }), unread("vStar", "innerLearningRate with track, the search's step")],
  [
    { dtype: "f16", ...inner({}) },
    "<dtype>: expected f32 with SPO's inner steps (solver unrolled, vStar track), found f16",
  ],
  [
    { batchSize: 4, gradientAccumulationSteps: 2, ...spo({ sftData: "sft.jsonl", sftBatchSize: 3 }) },
    "<spo.sftBatchSize>: expected a multiple of the 2 micro-batches, found 3",
  ],
  [spo({ lambdaSchedule: "linear" }), unread("lambdaSchedule", "lambdaEnd, where lambda grows to")],
  [
    spo({ lambdaSchedule: "geometric", lambda: 0, lambdaEnd: 1 }),
    unread("lambdaSchedule", "lambda and lambdaEnd above 0 for geometric growth"),
  ],
  // Settings of a fresh adapter without one.
  [
    { lora: { alpha: 8 } },
    "<lora.alpha>: expected a rank, which turns LoRA on, found settings that do not read it",
  ],
  [
    { lora: { targetModules: "q_proj" } },
    "<lora.targetModules>: expected a rank, which turns LoRA on, found settings that do not read it",
  ],
  [{ lora: { rank: 0 } }, "<lora.rank>: expected more than 0, found 0"],
  [{ lora: { dropout: 0.1 } }, "<lora.dropout>: expected a known setting, found none of that name"],
  // Micro-batches.
  [
    { batchSize: 8, gradientAccumulationSteps: 3 },
    "<gradientAccumulationSteps>: expected a divisor of the batch size 8, found 3",
  ],
  [
    { loss: "dpo,aot", gradientAccumulationSteps: 2 },
    "<gradientAccumulationSteps>: expected 1 with dpo,aot, whose pairs depend on the whole batch, found 2",
  ],
  [
    { loss: "aot_unpaired", batchTokens: 512 },
    "<batchTokens>: expected none with aot_unpaired, whose pairs depend on the whole batch, found 512",
  ],
  [
    { batchTokens: 512, ...spo({ penalty: "hinge" }) },
    "<batchTokens>: expected none with this SPO penalty, whose slope depends on the whole batch",
  ],
  [{ batchTokens: 512, ...inner({}) }, "<batchTokens>: expected none with passes of SPO's own, found 512"],
  ...[{ penalty: "hinge" }, { penalty: "quadratic" }, { lambdaSchedule: "dual" }].map((
    options,
  ): [Record<string, unknown>, string] => [
    { gradientAccumulationSteps: 2, ...spo(options) },
    "<gradientAccumulationSteps>: expected 1 with this SPO penalty, whose slope depends on the whole batch",
  ]),
];

function inner(options: Record<string, unknown>): Record<string, unknown> {
  return { spo: { solver: "unrolled", innerLearningRate: 0.1, ...options } };
}

function spo(options: Record<string, unknown>): Record<string, unknown> {
  return { spo: { solver: "penalty", ...options } };
}

function unread(key: string, expected: string): string {
  return `<spo.${key}>: expected ${expected}, found settings that do not read it`;
}

Deno.test("settings that cannot be honoured are refused, naming the key", () => {
  for (const [raw, message] of REFUSED) {
    assert.throws(() => parse(raw), (error: Error) => {
      assert.ok(error instanceof ConfigError, `${error}`);
      assert.equal(error.message, `Cannot use ${message}`);
      return true;
    }, JSON.stringify(raw));
  }
});

Deno.test("settings next to the refused ones are taken", () => {
  const taken: Record<string, unknown>[] = [
    { labelSmoothing: 0.49, loss: "dpo" },
    { loss: "sft" },
    { loss: "simpo", gammaBetaRatio: 0, beta: 10 },
    { batchSize: 8, gradientAccumulationSteps: 4 },
    { loss: "dpo,sft,cpo", lossWeights: "1,0.5,2", cpoAlpha: 0.1, gradientAccumulationSteps: 2 },
    { gradientAccumulationSteps: 2, ...spo({}) },
    spo({ lambdaSchedule: "linear", lambda: 0, lambdaEnd: 1, lambdaSteps: 5 }),
    spo({ lambdaSchedule: "dual", dualRate: 1, epsilon: 0.1 }),
    spo({ penalty: "hinge", epsilon: 0.1, vStar: 1.5 }),
    spo({ rho: 1, margin: 1 }),
    spo({ vStar: "track", innerLearningRate: 0.1, trackSteps: 2, trackEvery: 9 }),
    spo({ sftData: "sft.jsonl", sftBatchSize: 4, lowerLevelMean: "token" }),
    inner({ hypergradient: "hvp", hvpEpsilon: 0.1, rho: 1, margin: 1 }),
    inner({ solver: "alternating" }),
    { dtype: "f16", ...inner({ solver: "alternating" }) },
    { spo: { solver: "none" } },
    { onNonfinite: "skip" },
    { onNonfinite: "skip", maxNonfinite: 3, loss: "sft" },
    { onNonfinite: "stop", dtype: "f16" },
  ];
  for (const raw of taken) assert.doesNotThrow(() => parse(raw), JSON.stringify(raw));
});

Deno.test("defaults are filled in, and given values kept", () => {
  const config = parse({ batchSize: 2, spo: { solver: "penalty", lambda: 3 } });
  assert.equal(config.loss, "dpo");
  assert.equal(config.batchSize, 2);
  assert.equal(config.learningRate, 5e-5);
  assert.equal(config.spo.lambda, 3);
  assert.equal(config.spo.penalty, "linear");
  assert.equal(config.spo.vStar, "initial");
  assert.equal(parse({}).spo.solver, "none");
  const { csv, tensorboard } = parse({ tensorboard: true });
  assert.deepEqual({ csv, tensorboard }, { csv: false, tensorboard: true });
});

/** What every loss on log-ratios has. */
const DEFAULT_RATIO = { fDivergenceType: "reverse_kl", referenceFree: false };

Deno.test("a run's loss takes its own defaults and what the user gave", () => {
  assert.deepEqual(resolveLoss(parse({}))?.options, { ...DEFAULT_RATIO, beta: 0.1, labelSmoothing: 0 });
  assert.deepEqual(resolveLoss(parse({ loss: "simpo" }))?.options, { beta: 2, gammaBetaRatio: 0.5 });
  assert.deepEqual(resolveLoss(parse({ loss: "ipo", beta: 0.2, lengthNormalize: false }))?.options, {
    ...{ ...DEFAULT_RATIO, beta: 0.2, lengthNormalize: false },
  });
  assert.equal(resolveLoss(parse({ loss: "sft" })), undefined);
  assert.equal(resolveLoss(parse({ loss: "dpo,sft", lossWeights: "1,0.5" }))?.head.terms[1].weight, 0.5);
});
