/**
 * `chat`: a conversation, line by line.
 * @module
 */
import type { z } from "zod";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { type ChatMessage, renderChat } from "../data/chat_template.ts";
import { ConfigError, InputError } from "../errors.ts";
import { generateText } from "../generation/text.ts";
import {
  type CheckedFolder,
  checkFolder,
  describeSpeed,
  type OpenedModel,
  openModel,
} from "../generation/text_model.ts";
import { STOPPED_EXIT_CODE } from "../terminal.ts";
import { chatFlagsSchema } from "./chat.ts";

/** Tokens of a conversation, where nothing was asked for: a cache for all positions of a long model is large. */
const DEFAULT_LENGTH = 4096;

type Flags = z.output<typeof chatFlagsSchema>;

/**
 * @param invocation of `chat`
 * @returns the exit code: 1 where a message of a pipe could not be answered
 * @throws {InputError} on what the user can mend
 */
export async function runChat(invocation: Invocation): Promise<number> {
  const flags = parseFlags(chatFlagsSchema, invocation);
  const { log, progress } = openConsole(invocation);
  const checked = await checkFolder(flags, { log, progress });
  const positions = conversationLength(flags, checked);
  const chat = new Chat(flags, checked, positions);
  // A template that does not take the system message says so before anything is loaded.
  chat.encode([{ role: "user", content: "?" }]);
  const size = { sequences: 1, positions };
  using opened = await openModel(flags, checked, { size, promptTokens: positions, log });
  const isTerminal = Deno.stdin.isTerminal();
  if (isTerminal) {
    log("A line is a message. /reset begins anew, /exit leaves; Ctrl-C stops an answer, then leaves.");
  }
  const ask = () => isTerminal && Deno.stderr.writeSync(new TextEncoder().encode("> "));
  using _ = chat.listen();
  let code = 0;
  ask();
  for await (const line of lines(Deno.stdin.readable)) {
    if (line === "/exit") break;
    if (line === "/reset") chat.reset();
    else if (line.startsWith("/")) log(`Unknown command ${line}: /reset begins anew, /exit leaves`);
    else if (line.trim() !== "" && !await answered(chat, { opened, line, log }) && !isTerminal) code = 1;
    ask();
  }
  return code;
}

async function answered(
  chat: Chat,
  { opened, line, log }: { opened: OpenedModel; line: string; log: (line: string) => void },
): Promise<boolean> {
  try {
    await chat.answer(opened, line, log);
    return true;
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    console.error(`error: ${error.message}`);
    return false;
  }
}

function conversationLength({ maxLength }: Flags, { positions }: CheckedFolder): number {
  if (maxLength !== undefined && maxLength > positions) {
    throw new ConfigError(
      `Cannot use --max-length: expected at most ${positions}, as the model has positions, found ${maxLength}`,
    );
  }
  return maxLength ?? Math.min(positions, DEFAULT_LENGTH);
}

/** A conversation and its next answer. */
class Chat {
  readonly #history: ChatMessage[] = [];
  #answer: AbortController | null = null;

  constructor(
    private readonly flags: Flags,
    private readonly checked: CheckedFolder,
    private readonly positions: number,
  ) {}

  reset(): void {
    this.#history.length = 0;
  }

  /** Ctrl-C: first stops the answer, else leaves. */
  listen(): Disposable {
    const onInterrupt = () => {
      if (!this.#answer || this.#answer.signal.aborted) Deno.exit(STOPPED_EXIT_CODE);
      this.#answer.abort();
    };
    Deno.addSignalListener("SIGINT", onInterrupt);
    return { [Symbol.dispose]: () => Deno.removeSignalListener("SIGINT", onInterrupt) };
  }

  /** The conversation as the model's template writes it, up to where the answer begins. */
  encode(messages: readonly ChatMessage[]): number[] {
    const { tokenizer, name } = this.checked;
    if (!tokenizer.chatTemplate) {
      throw new ConfigError(
        `Cannot chat with ${name}: expected a chat template (chat_template.jinja, or chat_template in ` +
          "tokenizer_config.json), found none; deno task generate continues plain text",
      );
    }
    const { system } = this.flags;
    const all = [...(system === undefined ? [] : [{ role: "system", content: system }]), ...messages];
    const text = renderChat(tokenizer.chatTemplate, all, { addGenerationPrompt: true });
    try {
      return tokenizer.encode(text, { addSpecialTokens: false });
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new ConfigError(cause.message, { cause });
    }
  }

  async answer({ decoder }: OpenedModel, content: string, log: (line: string) => void): Promise<void> {
    const message = { role: "user", content };
    const ids = this.encode([...this.#history, message]);
    const left = this.positions - ids.length;
    if (left < 1) {
      throw new ConfigError(
        `Cannot answer: expected fewer than ${this.positions} tokens of conversation, found ${ids.length}; /reset begins ` +
          "anew",
      );
    }
    this.#answer = new AbortController();
    try {
      const encoder = new TextEncoder();
      const write = (text: string) => {
        const bytes = encoder.encode(text);
        for (let written = 0; written < bytes.length;) {
          written += Deno.stdout.writeSync(bytes.subarray(written));
        }
      };
      const kept = decoder.cached[0];
      const reused = ids.findIndex((id, index) => kept[index] !== id);
      const found = await generateText(decoder, ids, {
        ...this.checked.options,
        maxNewTokens: Math.min(this.flags.maxNewTokens, left),
        signal: this.#answer.signal,
        reuse: true,
        onText: write,
      });
      write("\n");
      if (this.flags.stats) log(describeSpeed(found, ids.length - (reused < 0 ? ids.length - 1 : reused)));
      this.#history.push(message, { role: "assistant", content: found.text });
    } finally {
      this.#answer = null;
    }
  }
}

/** Lines of a stream, the last one also without its end. */
async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop()!;
    for (const part of parts) yield part.replace(/\r$/, "");
  }
  rest += decoder.decode();
  if (rest !== "") yield rest;
}
