/**
 * The known name that a mistyped one was probably meant to be.
 * @module
 */

/**
 * Finds the known name nearest to a mistyped one: few edits away (of the whole name or of its part after the dot), or
 * a longer or shorter form of it. Case, hyphens and underscores do not count.
 *
 * @param given the name as typed, without leading dashes
 * @param known names to choose from; the first of equally near ones wins
 * @returns one of `known`, or undefined where none is near
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(nearestName("learnng_rate", ["beta", "learning-rate"]), "learning-rate");
 * assert.equal(nearestName("lambda", ["loss", "spo.lambda"]), "spo.lambda");
 * assert.equal(nearestName("port", ["beta", "seed"]), undefined);
 * ```
 */
export function nearestName(given: string, known: readonly string[]): string | undefined {
  const typed = plain(given);
  let nearest: string | undefined;
  let fewest = allowedEdits(typed);
  for (const name of known) {
    const edits = Math.min(countEdits(typed, plain(name)), countEdits(typed, plain(lastPart(name))));
    if (edits < fewest || (edits === fewest && nearest === undefined)) {
      nearest = name;
      fewest = edits;
    }
  }
  return nearest ?? known.find((name) => isFormOf(typed, plain(name)));
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}

/** About one edit in four letters: more would suggest names that have nothing in common. */
function allowedEdits(typed: string): number {
  return typed.length < 3 ? 0 : Math.min(3, Math.ceil(typed.length / 4));
}

function isFormOf(typed: string, name: string): boolean {
  return (typed.length >= 3 && name.startsWith(typed)) || (name.length >= 4 && typed.startsWith(name));
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other. */
function countEdits(from: string, to: string): number {
  const rows = [Array.from({ length: to.length + 1 }, (_, column) => column)];
  for (let i = 1; i <= from.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= to.length; j++) {
      const replaced = rows[i - 1][j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1);
      let edits = Math.min(replaced, rows[i - 1][j] + 1, rows[i][j - 1] + 1);
      const isSwap = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (isSwap) edits = Math.min(edits, rows[i - 2][j - 2] + 1);
      rows[i].push(edits);
    }
  }
  return rows[from.length][to.length];
}
