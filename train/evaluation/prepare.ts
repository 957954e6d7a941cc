/**
 * An evaluation from its settings: everything is read and checked first, then a device is needed.
 * @module
 */
import type { EvalFlags } from "../commands/eval.ts";
import type { EncodedCompletion } from "../data/encode.ts";
import { ConfigError } from "../errors.ts";
import { planDecoding } from "../generation/plan.ts";
import { architectureOf } from "../models/registry.ts";
import { readStopIds } from "../generation/stop_ids.ts";
import { type ResolveHooks, resolveModel } from "../hub/resolve_model.ts";
import { checkModelOrAdapter } from "../models/load_model.ts";
import { completionLogps } from "../reference.ts";
import { withProgress } from "../session.ts";
import { readGsm8k } from "../tasks/gsm8k.ts";
import { detectTask } from "./detect.ts";
import type { EvaluationTask } from "./task_names.ts";
import { type AnswerTask, evaluateAnswers, largestBatches } from "./exact_match.ts";
import { evaluatePerplexity } from "./perplexity.ts";
import { type EvaluationInput, openModel, type PreparedEvaluation } from "./input.ts";
import { preparePreferences } from "./prepare_preferences.ts";
import type { EvaluationReport } from "./report.ts";
import { arithmeticTask, gsm8kTask } from "./tasks.ts";
import { readTexts, surveyTexts } from "./text_files.ts";

/** Longest sequence where nothing else is asked for and the model could do more. */
const DEFAULT_MAX_LENGTH = 2048;
/** Generated problems where no number is given. */
const DEFAULT_PROBLEMS = 500;

/** Flags that only some kinds of evaluation read. */
const READ_BY: Readonly<Record<string, readonly EvaluationTask[]>> = {
  data: ["preference", "perplexity", "gsm8k"],
  maxLength: ["preference", "perplexity", "gsm8k"],
  overlong: ["preference"],
  reference: ["preference"],
  beta: ["preference"],
  stride: ["perplexity"],
  fewShot: ["gsm8k"],
  shots: ["gsm8k"],
  maxNewTokens: ["gsm8k"],
  seed: ["gsm8k", "arithmetic"],
};

/**
 * Finds out what is to be measured.
 *
 * @param flags of the command
 * @param given which of them the user set
 * @throws {InputError} when something is missing, or would not be read
 */
export async function chooseTask(flags: EvalFlags, given: ReadonlySet<string>): Promise<EvaluationTask> {
  if (flags.model === undefined) {
    throw new ConfigError("Cannot evaluate: expected --model with a model's folder, found none");
  }
  if (flags.data === undefined && flags.task !== "arithmetic") {
    throw new ConfigError(
      "Cannot evaluate: expected --data (or --task arithmetic, which needs none), found none",
    );
  }
  const task = flags.task === "auto" ? await detectTask(flags.data!) : flags.task;
  const unread = Object.keys(READ_BY).find((name) => given.has(name) && !READ_BY[name].includes(task));
  if (unread !== undefined) {
    const flag = `--${unread.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw new ConfigError(
      `Cannot use ${flag}: expected an evaluation that reads it (${
        READ_BY[unread].join(", ")
      }), found ${task}`,
    );
  }
  if (given.has("beta") && flags.reference === undefined) {
    throw new ConfigError("Cannot use --beta: expected --reference with it, found none");
  }
  return task;
}

/**
 * Reads and checks everything that a device is not needed for.
 *
 * @param task of {@link chooseTask}
 * @param flags of the command
 * @param hooks get notes on the data, and a bar for a download
 * @throws {InputError} naming file and line or key
 */
export async function prepareEvaluation(
  task: EvaluationTask,
  flags: EvalFlags,
  hooks: ResolveHooks,
): Promise<PreparedEvaluation> {
  const { model: name, base } = flags as EvalFlags & { model: string };
  const resolve = (name: string) => resolveModel(name, hooks);
  const { folders, config: modelConfig, tokenizer } = await checkModelOrAdapter(name, { base, resolve });
  const stopIds = await readStopIds(folders.base, tokenizer);
  const { positions } = architectureOf(modelConfig).dimensions;
  const asked = flags.maxLength ?? (task === "gsm8k" ? positions : DEFAULT_MAX_LENGTH);
  const maxLength = Math.min(asked, positions);
  const input = { flags, name, folders, modelConfig, tokenizer, stopIds, maxLength, log: hooks.log, resolve };
  switch (task) {
    case "preference":
      return await preparePreferences(input);
    case "perplexity":
      return await preparePerplexity(input);
    case "gsm8k":
      return await prepareGsm8k(input);
    case "arithmetic":
      return prepareArithmetic(input);
  }
}

async function preparePerplexity(input: EvaluationInput): Promise<PreparedEvaluation> {
  const { flags, tokenizer, modelConfig, maxLength } = input;
  const path = flags.data!;
  const stride = flags.stride ?? Math.max(1, Math.floor(maxLength / 2));
  if (stride >= maxLength) {
    throw new ConfigError(
      `Cannot use --stride: expected 1 to ${maxLength - 1}, one less than a window's tokens, found ${stride}`,
    );
  }
  const { vocab: vocabSize } = architectureOf(modelConfig).dimensions;
  const total = await surveyTexts(path, flags.limit);
  return {
    settings: { maxLength, stride, dtype: flags.dtype },
    async plan(gpu) {
      using model = await openModel(gpu, input);
      const { batchTokens: maxTokens } = flags;
      for (const batch of plannedWindows({ maxLength, stride, batchTokens: maxTokens })) {
        await completionLogps(model, batch, { maxTokens });
      }
    },
    async run(gpu, hooks, onDetail) {
      using model = await openModel(gpu, input);
      return await withProgress(hooks, "perplexity", async (onProgress) => {
        let done = 0;
        const onRead = (read: number) => void (done = read);
        const texts = readTexts(path, {
          tokenizer,
          vocabSize,
          maxLength,
          stride,
          limit: flags.limit,
          onRead,
        });
        onProgress(0, total);
        const found = await evaluatePerplexity(model, texts, {
          batchTokens: flags.batchTokens,
          onProgress: () => onProgress(Math.min(done, total), total),
          onText: ({ source, ...score }) => onDetail({ ...source, ...score }),
        });
        onProgress(total, total);
        return found;
      });
    },
  };
}

/** Batches of the longest windows: of texts that fit one, of the beginning, the middle and the end of a long text. */
function plannedWindows(
  { maxLength, stride, batchTokens }: { maxLength: number; stride: number; batchTokens: number },
): EncodedCompletion[][] {
  const window = (given: number): EncodedCompletion => ({
    promptIds: Array<number>(given).fill(0),
    completionIds: Array<number>(maxLength - given).fill(0),
    source: { file: "planned" },
  });
  const [first, later] = [window(1), window(maxLength - stride)];
  const count = Math.max(1, Math.floor(batchTokens / maxLength));
  const most = Array.from({ length: count }, () => later);
  return [[first, ...most.slice(1)], most, [later], Array.from({ length: count }, () => first)];
}

async function prepareGsm8k(input: EvaluationInput): Promise<PreparedEvaluation> {
  const { flags: { data, fewShot, shots: asked, maxNewTokens, seed, limit, dtype } } = input;
  const { tokenizer, maxLength: positions, log } = input;
  if (fewShot !== undefined && fewShot === data) {
    throw new ConfigError(
      "Cannot use --few-shot: expected another file than --data, whose answers it would tell, found it",
    );
  }
  if (fewShot === undefined && asked) {
    throw new ConfigError(`Cannot use --shots ${asked}: expected --few-shot with it, found none`);
  }
  const problems = await readGsm8k(data!, { limit });
  const examples = fewShot === undefined ? [] : await readGsm8k(fewShot);
  const { task, shots } = gsm8kTask(problems, {
    examples,
    shots: asked,
    maxNewTokens,
    seed,
    tokenizer,
    positions,
  });
  if (fewShot !== undefined && asked === undefined && shots < 8) {
    log(`${shots} worked examples fit the model's positions`);
  }
  return answering(input, task, { shots, maxNewTokens, seed, dtype });
}

function prepareArithmetic(input: EvaluationInput): PreparedEvaluation {
  const { limit = DEFAULT_PROBLEMS, seed, dtype } = input.flags;
  return answering(input, arithmeticTask({ count: limit, seed }), { seed, dtype });
}

function answering(
  input: EvaluationInput,
  task: AnswerTask,
  settings: EvaluationReport["settings"],
): PreparedEvaluation {
  return {
    settings,
    async plan(gpu) {
      using model = await openModel(gpu, input);
      const { tokenizer, flags: { batchTokens } } = input;
      for (const sizes of largestBatches(task, { tokenizer, batchTokens })) {
        await planDecoding(model, { ...sizes, reading: "ids" });
      }
    },
    async run(gpu, hooks, onDetail) {
      using model = await openModel(gpu, input);
      return await withProgress(hooks, "answers", (onProgress) =>
        evaluateAnswers(model, task, {
          tokenizer: input.tokenizer,
          stopIds: input.stopIds,
          batchTokens: input.flags.batchTokens,
          onProgress,
          onAnswer: ({ source, prompt, answer, output, findings }) =>
            onDetail({ ...source, prompt, answer, output, ...findings }),
        }));
    },
  };
}
