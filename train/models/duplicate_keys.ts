/**
 * JSON.parse keeps the last of two equal keys without a word; other readers keep the first. A file that means different
 * things to different readers is refused, so equal keys have to be found in the text.
 *
 * @module
 */

/**
 * Finds a key that occurs twice in one object, at any depth.
 *
 * @param text JSON that `JSON.parse` has accepted: nothing is checked here.
 * @returns The key with its parents, outermost first, or undefined when there is none.
 * @example
 * ```ts
 * const path = findDuplicateKey('{"w": {"shape": [1], "shape": [2]}}');
 * if (path?.join(".") !== "w.shape") throw new Error("w has two shapes");
 * ```
 */
export function findDuplicateKey(text: string): string[] | undefined {
  // One entry per open bracket: the keys seen so far (none for an array) and the key being read.
  const open: { keys: Set<string> | undefined; key: string }[] = [];
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{") open.push({ keys: new Set(), key: "" });
    else if (character === "[") open.push({ keys: undefined, key: "" });
    else if (character === "}" || character === "]") open.pop();
    if (character !== '"') continue;
    const start = i;
    i = closingQuote(text, start);
    const inner = open.at(-1);
    if (inner?.keys === undefined || !isKey(text, i + 1)) continue;
    inner.key = JSON.parse(text.slice(start, i + 1));
    if (inner.keys.has(inner.key)) return open.filter((level) => level.keys).map((level) => level.key);
    inner.keys.add(inner.key);
  }
  return undefined;
}

function closingQuote(text: string, start: number): number {
  let i = start + 1;
  while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
  return i;
}

function isKey(text: string, after: number): boolean {
  let i = after;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\r" || text[i] === "\t") i++;
  return text[i] === ":";
}
