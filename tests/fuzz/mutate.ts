/**
 * Damage for fuzz tests, by a seed.
 *
 * @module
 */

/** Pieces that parsers of records stumble over. */
const TOKENS = [
  ...[
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\0",
    "-",
    "1e999",
    "9007199254740993",
    "null",
    "true",
    "0.5",
    "\n",
  ],
  ...[
    '"__proto__"',
    '"constructor"',
    '"prompt"',
    '"chosen"',
    '"role"',
    '"label"',
    '"margin"',
    '"conversations"',
  ],
  ...["[".repeat(20_000), '{"a":'.repeat(20_000), "\ud800", "\ufeff", "\u2028", " ".repeat(5_000)],
];

/**
 * Changes characters, repeats a part, cuts, or puts a token in: once to three times.
 *
 * @param seed What to damage.
 * @param random From 0 to 1.
 * @param options.tokens What may be put in: by default what parsers of records stumble over.
 * @param options.most Times, 3 by default.
 */
export function mutateText(
  seed: string,
  random: () => number,
  options: { tokens?: readonly string[]; most?: number } = {},
): string {
  const { tokens = TOKENS, most = 3 } = options;
  const below = (limit: number) => Math.floor(random() * limit);
  let text = seed;
  for (let times = 1 + below(most); times > 0; times--) {
    const [at, end] = [below(text.length + 1), below(text.length + 1)].sort((a, b) => a - b);
    switch (below(5)) {
      case 0:
        text = text.slice(0, at) + String.fromCharCode(below(256)) + text.slice(at + 1);
        break;
      case 1:
        text = text.slice(0, at) + tokens[below(tokens.length)] + text.slice(at);
        break;
      case 2:
        text = text.slice(0, at) + tokens[below(tokens.length)] + text.slice(Math.min(end, at + 8));
        break;
      case 3:
        text = text.slice(0, end) + text.slice(at, Math.min(end, at + 60)) + text.slice(end);
        break;
      default:
        text = text.slice(0, at) + text.slice(Math.min(end, at + 20));
    }
  }
  return text;
}

/**
 * Changes, sets, repeats or cuts bytes: once to six times.
 *
 * @param seed What to damage.
 * @param random From 0 to 1.
 */
export function mutateBytes(seed: Uint8Array, random: () => number): Uint8Array {
  const below = (limit: number) => Math.floor(random() * limit);
  let bytes = Uint8Array.from(seed);
  for (let times = 1 + below(6); times > 0; times--) {
    const at = below(bytes.length);
    switch (below(6)) {
      case 0:
        bytes[at] ^= 1 << below(8);
        break;
      case 1:
        bytes[at] = [0, 0xff, 0x7f, 0x80][below(4)];
        break;
      case 2:
        // A length, or a part of one, as large as it can be.
        bytes.fill(0xff, at, at + 1 + below(9));
        break;
      case 3:
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(Math.max(0, at - below(20)))]);
        break;
      case 4:
        // Cuts are refused early: rarely, so that the rest gets its turn.
        if (below(4) === 0) bytes = bytes.slice(0, at);
        break;
      default:
        bytes[at] = below(256);
    }
    if (bytes.length === 0) return bytes;
  }
  return bytes;
}

/** Values of types that a key may wrongly have. */
const VALUES: unknown[] = [
  ...[null, true, false, 0, -1, 1e308, 1.5, "", " ", "\n\n\t", "text", "\ud800", [], {}, [[]], [{}], [null]],
  ...[{ role: "user" }, { role: 1, content: [] }, { from: "human", value: null }, {
    from: "__proto__",
    value: "",
  }],
  ...[[{ role: "user", content: "a" }], [{ from: "gpt", value: "b" }], "\n\nHuman: a\n\nAssistant: b"],
];
const KEYS = [
  ...[
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "instruction",
    "input",
    "output",
    "conversations",
  ],
  ...[
    "messages",
    "system",
    "tools",
    "role",
    "content",
    "from",
    "value",
    "margin",
    "text",
    "question",
    "answer",
  ],
  ...["reference_chosen_logps", "chat_template_kwargs", "__proto__", "constructor", "toString", ""],
];

/**
 * Sets, moves or takes away values anywhere in a record: once to three times.
 *
 * @param seed What to damage; it stays as it is.
 * @param random From 0 to 1.
 */
export function mutateValue(seed: Record<string, unknown>, random: () => number): Record<string, unknown> {
  const below = (limit: number) => Math.floor(random() * limit);
  const record = structuredClone(seed);
  for (let times = 1 + below(3); times > 0; times--) {
    // deno-lint-ignore no-explicit-any -- walks down records of any form
    let place: any = record;
    for (let depth = below(4); depth > 0; depth--) {
      const inner = Object.values(place).filter((value) => typeof value === "object" && value !== null);
      if (inner.length > 0) place = inner[below(inner.length)];
    }
    const own = Object.keys(place);
    const key = own.length > 0 && below(3) > 0 ? own[below(own.length)] : KEYS[below(KEYS.length)];
    const set = (value: unknown) =>
      Object.defineProperty(place, key, { value, enumerable: true, writable: true, configurable: true });
    switch (below(4)) {
      case 0:
        // An own `constructor` would be asked for the species.
        if (Array.isArray(place) && !Object.hasOwn(place, "constructor")) {
          place.splice(below(place.length + 1), 1);
        } else delete place[key];
        break;
      case 1:
        set(structuredClone(own.length > 0 ? place[own[below(own.length)]] : null));
        break;
      default:
        set(structuredClone(VALUES[below(VALUES.length)]));
    }
  }
  return record;
}
