/**
 * Text from anywhere as HTML that shows it.
 * @module
 */

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Escapes a text for an element's content or a quoted attribute. Control characters, which HTML cannot hold, and those
 * that turn the direction of the text around are shown as escapes; line ends and tabs stay.
 *
 * @param text any text
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(escapeHtml("<b>&\u0000"), "&lt;b&gt;&amp;\\u0000");
 * ```
 */
export function escapeHtml(text: string): string {
  return text
    .toWellFormed()
    // deno-lint-ignore no-control-regex -- they are what is looked for
    .replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, asEscape)
    .replaceAll(/[&<>"']/g, (character) => ENTITIES[character]);
}

function asEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
