/**
 * The style sheet of a report.
 * @module
 */
import { BACKGROUNDS, DARK_PALETTE, LIGHT_PALETTE } from "./palette.ts";

/** Colours of either scheme, as variables. */
export const COLORS = `:root { color-scheme: light dark; ${variables(LIGHT_PALETTE)}
  --background: ${BACKGROUNDS.light}; --text: #1b1f24; --muted: #57606a; --line: #d0d7de; --raised: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { ${variables(DARK_PALETTE)}
  --background: ${BACKGROUNDS.dark}; --text: #e6e9ed; --muted: #9aa4af; --line: #343b44; --raised: #1d2228; } }
`;

/** The content of the page's one `<style>`; its hash stands in the page's policy. */
export const REPORT_STYLE = `
${COLORS}* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--background); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1, h2, p, figcaption, caption, li, summary { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0 0; }
h2 { font-size: 1.25rem; margin: 2rem 0 0.5rem; border-bottom: 1px solid var(--line); }
p { max-width: 48rem; white-space: pre-line; }
a { color: inherit; }
.subtitle, .note { color: var(--muted); margin: 0.25rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0; list-style: none; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: 0.75rem; border: 1px solid var(--line); border-radius: 6px; min-width: 0; }
figcaption { font-weight: 600; }
figure > svg { display: block; width: 100%; height: auto; color: var(--text); font-family: system-ui, sans-serif; }
figure > svg text { white-space: pre; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0.25rem 0; padding: 0; list-style: none;
  font-size: 0.85rem; }
.legend svg { margin-right: 0.4rem; vertical-align: middle; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.25rem; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: pre-wrap; unicode-bidi: isolate; }
th { white-space: normal; background: var(--raised); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { overflow-x: auto; padding: 0.75rem; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; }
`;

function variables(palette: readonly string[]): string {
  return palette.map((color, place) => `--series-${place}: ${color};`).join(" ");
}
