/**
 * Colours of a report. Each stands out 3 to 1 or more against its background, and any two stay apart for eyes with
 * protanopia and deuteranopia (a test computes both).
 * @module
 */

/** Of series on a light page, in order. */
export const LIGHT_PALETTE: readonly string[] = [
  "#0068b0",
  "#f30000",
  "#1a9d7b",
  "#974374",
  "#2e832e",
  "#3a3a3a",
];

/** Of the same series on a dark page. */
export const DARK_PALETTE: readonly string[] = [
  "#5c71fe",
  "#ff2300",
  "#3f9197",
  "#d6b4f6",
  "#f0c000",
  "#e9ffda",
];

/** Backgrounds that the palettes were made for. */
export const BACKGROUNDS = { light: "#ffffff", dark: "#15181c" } as const;

/**
 * The colour of a series as CSS: the page's variable, or the light palette's colour where there is no page.
 *
 * @param place in the palette; places repeat after the last
 */
export function seriesColor(place: number): string {
  const slot = place % LIGHT_PALETTE.length;
  return `var(--series-${slot}, ${LIGHT_PALETTE[slot]})`;
}

/** Whether the series of a place is dashed where it does not say: from the second round of the palette on. */
export function isDashedByDefault(place: number): boolean {
  return place >= LIGHT_PALETTE.length;
}
