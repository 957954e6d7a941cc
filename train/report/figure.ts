/**
 * What a figure of a report is, and what its axes and series are.
 * @module
 */

/** A figure that is drawn: a page shows its title and legend around the picture. */
export interface Figure {
  readonly title: string;
  /** What a screen reader says in place of the picture. */
  readonly description: string;
  /** One entry per series; empty where there is one series, which the title names. */
  readonly legend: readonly LegendEntry[];
  /** An `<svg>` element. Its colours are the page's CSS variables, and those of a light page where there are none. */
  readonly svg: string;
}

/** A line of a legend. */
export interface LegendEntry extends SeriesStyle {
  readonly name: string;
  readonly mark: "line" | "bar" | "dot";
}

/** An axis: its label is printed as `label (unit)`. */
export interface Axis {
  readonly label: string;
  /** Unit of the numbers, such as `nats` or `%`; of categories, what they are. */
  readonly unit: string;
}

/** An axis of numbers. */
export interface NumberAxis extends Axis {
  /** `log` takes positive numbers alone; linear by default. */
  readonly scale?: "linear" | "log";
  /** Where the axis begins and ends; by default it fits the data. */
  readonly domain?: readonly [number, number];
}

/** How a series is drawn. */
export interface SeriesStyle {
  /** Place in the palette, from 0; places repeat after the last. By default a series' place in its figure. */
  readonly color?: number;
  /** A dashed line: tells a variant from its base in the same colour. */
  readonly dashed?: boolean;
}

/** A point of a line, with a band from low to high where both are given. */
export interface LinePoint {
  readonly x: number;
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
}

/** A line, its points in the order of x. */
export interface LineSeries extends SeriesStyle {
  readonly name: string;
  readonly points: readonly LinePoint[];
}

/** Lines over a number. */
export interface LineFigureOptions {
  readonly title: string;
  readonly x: NumberAxis;
  readonly y: NumberAxis;
  readonly series: readonly LineSeries[];
}

/** A bar from zero, with an error bar from low to high where both are given. */
export interface Bar {
  readonly value: number;
  readonly low?: number;
  readonly high?: number;
}

/** Bars of one colour, one per group. */
export interface BarSeries extends Pick<SeriesStyle, "color"> {
  readonly name: string;
  /** As many as there are groups; undefined leaves the place empty. */
  readonly bars: readonly (Bar | undefined)[];
}

/** Bars side by side in groups. */
export interface BarFigureOptions {
  readonly title: string;
  /** Of the groups; `unit` says what they are. */
  readonly x: Axis;
  readonly y: Omit<NumberAxis, "scale">;
  /** Names, from left to right. */
  readonly groups: readonly string[];
  readonly series: readonly BarSeries[];
}

/** Points of one colour. */
export interface ScatterSeries extends Pick<SeriesStyle, "color"> {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** Points in a plane. */
export interface ScatterFigureOptions {
  readonly title: string;
  readonly x: NumberAxis;
  readonly y: NumberAxis;
  readonly series: readonly ScatterSeries[];
  /** Draw the least-squares line through all points. */
  readonly fitLine?: boolean;
}
