/**
 * What a seed of the study trains on and is measured by.
 * @module
 */
import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
import { encodeCompletions, type EncodedCompletion, type EncodedPair, encodePairs } from "../data/encode.ts";
import { createTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import type { ExactTask } from "../evaluate.ts";
import { createRandom, deriveSeed } from "../random.ts";
import {
  ARITHMETIC_ALPHABET,
  ARITHMETIC_EOS,
  corrupt,
  generateExamples,
  generateHeldOut,
  generatePairs,
  isCorrect,
  variants,
} from "../tasks/arithmetic.ts";
import type { StudySettings } from "./settings.ts";

/** Everything is generated from the seed alone; no held-out problem is ever trained on. */
export interface StudyData {
  readonly tokenizer: Tokenizer;
  /** Of supervised fine-tuning. */
  readonly completions: readonly EncodedCompletion[];
  /** Pairs whose sides differ in so many digits. */
  pairs(corruptedDigits: number): readonly EncodedPair[];
  /** Held-out problems; sides differ in one digit. */
  readonly heldOut: readonly EncodedPair[];
  /** Per held-out pair, the index of the token in which its sides differ. */
  readonly corruptedAt: readonly number[];
  /** Per problem: the right chain, then all its one-digit corruptions. */
  readonly groups: readonly (readonly EncodedCompletion[])[];
  readonly task: ExactTask;
}

/** Longest chain with its problem, in characters, which are tokens here. */
const MAX_LENGTH = 16;
/** Tokens of a chain. */
const CHAIN_TOKENS = 6;

/** What the data depend on besides the seed. */
export type StudyDataSettings = Pick<StudySettings, "heldOut" | "massProblems" | "evolutionProblems"> & {
  readonly sft: Pick<StudySettings["sft"], "examples">;
  readonly preference: Pick<StudySettings["preference"], "pairs">;
};

/**
 * @param settings of the study
 * @param seed of this part of it
 */
export function studyData(settings: StudyDataSettings, seed: number): StudyData {
  const tokenizer = createTokenizer(characterTokenizerFiles(ARITHMETIC_ALPHABET, { eos: ARITHMETIC_EOS }), {
    source: "arithmetic",
  });
  const random = (name: string) => createRandom(deriveSeed(seed, name));
  const options = { tokenizer, vocabSize: tokenizer.vocabSize, maxLength: MAX_LENGTH };
  const source = (index: number) => ({ file: "arithmetic", index });
  const completions = (texts: readonly { prompt: string; completion: string }[]) =>
    encodeCompletions(texts.map((text, index) => ({ ...text, source: source(index) })), options).completions;
  const heldOut = generateHeldOut(random("held-out"), settings.heldOut);
  const pick = random("held-out pairs");
  const records = heldOut.map(({ prompt, completion }, index) => {
    return { prompt, chosen: completion, rejected: corrupt(pick, completion, 1), source: source(index) };
  });
  const pairs = new Map<number, readonly EncodedPair[]>();
  return {
    tokenizer,
    completions: completions(generateExamples(random("sft"), settings.sft.examples)),
    pairs(corruptedDigits) {
      const made = pairs.get(corruptedDigits) ??
        encodePairs(
          generatePairs(random("pairs"), settings.preference.pairs, { corruptedDigits }),
          options,
        ).pairs;
      pairs.set(corruptedDigits, made);
      return made;
    },
    heldOut: encodePairs(records, options).pairs,
    corruptedAt: records.map(({ chosen, rejected }) => [...chosen].findIndex((c, at) => c !== rejected[at])),
    groups: heldOut.slice(0, Math.max(settings.massProblems, settings.evolutionProblems)).map((
      { prompt, completion },
    ) =>
      completions([completion, ...variants(completion)].map((answer) => ({ prompt, completion: answer })))
    ),
    task: { prompts: heldOut.map(({ prompt }) => prompt), isCorrect, maxNewTokens: CHAIN_TOKENS },
  };
}
