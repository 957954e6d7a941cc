/**
 * Plots as text: Observable Plot on a document of its own, without a browser.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Axis, NumberAxis } from "./figure.ts";

/** Size of every figure in its own units; the page scales it to its column. */
export const FIGURE_SIZE = { width: 480, height: 300 } as const;

const CLASS_NAME = "plot";
const INSETS = { marginTop: 14, marginLeft: 64, marginRight: 16, marginBottom: 44 } as const;
/** Below the smallest ticks a linear axis prints powers of ten. */
const SMALL_TICK = 1e-3;
const LARGE_TICK = 1e5;

/**
 * Draws a plot and returns its `<svg>` element. The same options give the same bytes: names that Plot would number
 * over the life of the process are fixed.
 *
 * @param options of Observable Plot, without its document
 * @param text the figure's title and what a screen reader says of it
 */
export function drawPlot(options: Plot.PlotOptions, text: { title: string; description: string }): string {
  // linkedom declares the browser's types, which Deno does not know.
  const { document } = parseHTML("<!doctype html><html><body></body></html>") as unknown as {
    document: { createElement(name: string): SvgElement };
  };
  const svg = Plot.plot({
    ...FIGURE_SIZE,
    ...INSETS,
    style: { fontSize: "12px" },
    ...options,
    className: CLASS_NAME,
    document: document as unknown as Plot.PlotOptions["document"],
  }) as unknown as SvgElement;
  // The page has one style sheet, named by its hash: styles anywhere else are forbidden in it.
  for (const style of [...svg.querySelectorAll("style")]) style.remove();
  svg.removeAttribute("style");
  for (const styled of [...svg.querySelectorAll("[style]")]) styled.removeAttribute("style");
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("font-size", "12");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", text.title);
  const description = document.createElement("desc");
  description.textContent = text.description;
  svg.prepend(description);
  return withOwnMarkers(svg.outerHTML, text.title);
}

/** Plot numbers its markers over the life of the process: here over the figure, under the figure's name. */
function withOwnMarkers(svg: string, title: string): string {
  const name = title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  const numbers = new Map<string, number>();
  return svg.replaceAll(/plot-marker-(\d+)/g, (_, number: string) => {
    if (!numbers.has(number)) numbers.set(number, numbers.size + 1);
    return `${name}-marker-${numbers.get(number)}`;
  });
}

/** What is used of a DOM element. */
interface SvgElement {
  textContent: string | null;
  readonly outerHTML: string;
  querySelectorAll(selector: string): Iterable<SvgElement>;
  setAttribute(name: string, value: string): void;
  removeAttribute(name: string): void;
  prepend(child: SvgElement): void;
  remove(): void;
}

/** An axis' text. */
export function axisLabel({ label, unit }: Axis): string {
  return `${label} (${unit})`;
}

/**
 * A scale of Plot's for an axis of numbers, with its label in the middle and a grid.
 *
 * @param axis the axis
 * @param values that are drawn along it
 * @throws {RangeError} where one is not finite, or not positive on a logarithmic axis
 */
export function numberScale(axis: NumberAxis, values: readonly number[]): Plot.ScaleOptions {
  const { scale = "linear", domain } = axis;
  checkNumbers(axis, values);
  return {
    type: scale,
    label: axisLabel(axis),
    labelAnchor: "center",
    labelArrow: "none",
    ticks: 6,
    grid: true,
    tickFormat: scale === "log" ? formatTick : tickFormat(domain ?? extent(values)),
    ...(domain ? { domain: [...domain] } : values.length > 0 ? { domain: paddedExtent(values, scale) } : {}),
  };
}

function checkNumbers(axis: NumberAxis, values: readonly number[]): void {
  const isPositive = axis.scale === "log";
  const bad = values.find((value) => !Number.isFinite(value) || (isPositive && value <= 0));
  if (bad === undefined) return;
  throw new RangeError(
    `Cannot draw ${axisLabel(axis)}: expected ${isPositive ? "positive" : "finite"} numbers, found ${bad}`,
  );
}

/** A range of no width is widened: an axis needs one. */
function paddedExtent(values: readonly number[], scale: "linear" | "log"): [number, number] {
  const [low, high] = extent(values);
  if (low < high) return [low, high];
  if (scale === "log") return [low / 2, high * 2];
  const pad = Math.abs(low) / 2 || 1;
  return [low - pad, high + pad];
}

function extent(values: readonly number[]): [number, number] {
  // A spread argument list of a long run would overflow the stack.
  return values.reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    [Infinity, -Infinity],
  );
}

function tickFormat([low, high]: readonly [number, number]): ((value: number) => string) | undefined {
  const largest = Math.max(Math.abs(low), Math.abs(high));
  return largest < SMALL_TICK * 10 || largest >= LARGE_TICK ? formatTick : undefined;
}

function formatTick(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < SMALL_TICK || size >= LARGE_TICK)) {
    return Number(value.toPrecision(3)).toExponential();
  }
  return String(Number(value.toPrecision(6)));
}

/** A number for a sentence. */
export function spokenNumber(value: number): string {
  return String(Number(value.toPrecision(4)));
}
