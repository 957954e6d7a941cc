/**
 * `generate`: a prompt to its continuation.
 * @module
 */
import type { z } from "zod";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { renderChat } from "../data/chat_template.ts";
import { encodePrompt } from "../data/encode.ts";
import { ConfigError } from "../errors.ts";
import { checkGeneration } from "../generate.ts";
import { generateText } from "../generation/text.ts";
import { type CheckedFolder, checkFolder, describeSpeed, openModel } from "../generation/text_model.ts";
import { formatBytes } from "../format_bytes.ts";
import { stopOnSignal, stoppedExitCode } from "../terminal.ts";
import { generateFlagsSchema } from "./generate.ts";

type Flags = z.output<typeof generateFlagsSchema>;

/**
 * @param invocation of `generate`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runGenerate(invocation: Invocation): Promise<number> {
  const flags = parseFlags(generateFlagsSchema, invocation);
  const { log, progress } = openConsole(invocation);
  if (flags.system !== undefined && !flags.chat) {
    throw new ConfigError("Cannot use --system: expected --chat beside it, found none");
  }
  const checked = await checkFolder(flags, { log, progress });
  const prompt = await readPrompt(flags.prompt);
  const promptIds = encode(prompt, flags, checked);
  refuseBadSize(promptIds.length, checked);
  using stop = stopOnSignal();
  const size = { sequences: 1, positions: promptIds.length + flags.maxNewTokens - 1 };
  using opened = await openModel(flags, checked, {
    size,
    promptTokens: promptIds.length,
    log,
    signal: stop.signal,
  });
  // From here on what is there is kept: decoding looks at the signal itself.
  opened.gpu.signal = null;
  const write = (text: string) => writeAll(new TextEncoder().encode(text));
  const found = await generateText(opened.decoder, promptIds, {
    ...checked.options,
    signal: stop.signal,
    ...(invocation.json ? {} : { onText: write }),
  });
  const { text, ids, finish } = found;
  write(invocation.json ? `${JSON.stringify({ prompt, text, ids, finish })}\n` : "\n");
  if (flags.stats) {
    log(describeSpeed(found, promptIds.length));
    log(`GPU memory: ${formatBytes(opened.gpu.stats().memory.peakBytes)}.`);
  }
  return finish === "aborted" ? stoppedExitCode() : 0;
}

/** One newline at the end is the shell's, not the prompt's. */
async function readPrompt(prompt: string | undefined): Promise<string> {
  if (prompt !== undefined && prompt !== "-") return prompt;
  const bytes = new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer());
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replace(/\r?\n$/, "");
  } catch (cause) {
    throw new ConfigError("Cannot read the prompt from standard input: expected UTF-8 text", { cause });
  }
}

function encode(prompt: string, { chat, system }: Flags, { name, tokenizer }: CheckedFolder): number[] {
  try {
    if (!chat) return encodePrompt(prompt, { tokenizer });
    if (!tokenizer.chatTemplate) {
      throw new ConfigError(
        `Cannot use --chat: expected a chat template in ${name} (chat_template.jinja, or chat_template in ` +
          `tokenizer_config.json), found none; without --chat the prompt is continued as plain text`,
      );
    }
    const messages = [
      ...(system === undefined ? [] : [{ role: "system", content: system }]),
      { role: "user", content: prompt },
    ];
    const text = renderChat(tokenizer.chatTemplate, messages, { addGenerationPrompt: true });
    return tokenizer.encode(text, { addSpecialTokens: false });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

function refuseBadSize(promptTokens: number, { positions, options }: CheckedFolder): void {
  if (promptTokens === 0) {
    throw new ConfigError("Cannot generate: expected a prompt of at least one token, found an empty one");
  }
  try {
    checkGeneration({ positions }, [promptTokens], options);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new ConfigError(`${cause.message}; --max-new-tokens says how many`, { cause });
  }
}

/** A pipe may take less than it is given. */
function writeAll(bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;) written += Deno.stdout.writeSync(bytes.subarray(written));
}
