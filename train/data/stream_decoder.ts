/**
 * Text of tokens as they come: a token may end within a character, and some decoders look at the token before.
 *
 * @module
 */
import type { Tokenizer } from "./tokenizer.ts";

/** Turns tokens into text one after another. */
export interface StreamDecoder {
  /**
   * Takes the next token.
   *
   * @param id A token id.
   * @returns What the text grew by; empty while the bytes of a character are incomplete.
   * @throws {RangeError} When the id is not a non-negative integer.
   */
  push(id: number): string;
  /**
   * Ends the text.
   *
   * @returns What was held back, broken characters as U+FFFD; the decoder begins anew.
   */
  end(): string;
}

/** A character has at most four bytes, so that what is broken after this many tokens stays broken. */
const MAX_HELD_TOKENS = 8;

/**
 * Makes a decoder for text that is shown while it is generated. The pieces joined are the text of
 * `tokenizer.decode` with `cleanUpTokenizationSpaces: false` (cleaning would change what was already shown).
 *
 * @param tokenizer The tokenizer.
 * @param options `skipSpecialTokens`, default false.
 * @returns The decoder.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 * import { createTokenizer } from "./tokenizer.ts";
 *
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const stream = createStreamDecoder(tokenizer, { skipSpecialTokens: true });
 * assert.deepEqual(tokenizer.encode("1+0.").map((id) => stream.push(id)), ["1", "+", "0", ""]);
 * assert.equal(stream.end(), "");
 * ```
 */
export function createStreamDecoder(
  tokenizer: Pick<Tokenizer, "decode">,
  options: { skipSpecialTokens?: boolean } = {},
): StreamDecoder {
  const { skipSpecialTokens = false } = options;
  // Tokens already shown that the decoder may look back at, and those held back.
  let shown: number[] = [];
  let held: number[] = [];
  const decode = (ids: number[]) =>
    tokenizer.decode(ids, { skipSpecialTokens, cleanUpTokenizationSpaces: false });
  const show = (): string => {
    const before = decode(shown);
    const text = decode([...shown, ...held]);
    // A run of byte tokens that breaks changes what was shown of it, which cannot be taken back.
    const piece = text.startsWith(before) ? text.slice(before.length) : decode(held);
    // Tokens without text of their own stay, so that a first token's space is judged as the first's.
    shown = piece === "" ? [...shown, ...held] : held;
    held = [];
    return piece;
  };
  return {
    push(id) {
      held.push(id);
      const isBroken = decode([...shown, ...held]).endsWith("\ufffd");
      return isBroken && held.length < MAX_HELD_TOKENS ? "" : show();
    },
    end() {
      const rest = held.length > 0 ? show() : "";
      shown = [];
      return rest;
    },
  };
}
