/**
 * What a page looks like, coarsely: the mean luminance of the cells of a grid over each figure's picture. Fonts differ
 * between machines, and lines do not.
 *
 * @module
 */
import type { Browser, Page } from "puppeteer-core";

/** Cells of a picture, across and down. */
export const GRID = { columns: 16, rows: 10 } as const;

/** A figure's picture: 0 is black, 255 white, row by row. */
export interface Picture {
  readonly title: string;
  readonly cells: readonly number[];
}

/**
 * Differences of cells that other fonts may make: every text of a picture in a monospace or a serif font moves the mean
 * by 0.36 and a cell by 10 at most; without its lines, a picture's mean moves by 0.76 or more. The test does both.
 */
const TOLERANCE = { mean: 0.55, worst: 16 } as const;

/** Takes a screenshot of the whole page, and reads every figure's picture in it. */
export async function takePictures(browser: Browser, page: Page): Promise<Picture[]> {
  const places = await page.evaluate(FIND_PICTURES) as { title: string; box: number[] }[];
  const png = await page.screenshot({ encoding: "base64", fullPage: true });
  const reader = await browser.newPage();
  try {
    const cells = await reader.evaluate(readCells(png, places.map(({ box }) => box))) as number[][];
    return places.map(({ title }, index) => ({ title, cells: cells[index] }));
  } finally {
    await reader.close();
  }
}

/** Run in the report. */
const FIND_PICTURES = `[...document.querySelectorAll("figure")].map((figure) => {
  const { left, top, width, height } = figure.querySelector(":scope > svg").getBoundingClientRect();
  const title = figure.querySelector("figcaption").textContent;
  return { title, box: [left + scrollX, top + scrollY, width, height].map(Math.round) };
})`;

/** Run in a page of its own, without the report's policy: a canvas there decodes the image. */
function readCells(png: string, boxes: readonly (readonly number[])[]): string {
  return `(async () => {
    const image = new Image();
    image.src = "data:image/png;base64,${png}";
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const [columns, rows] = [${GRID.columns}, ${GRID.rows}];
    return ${JSON.stringify(boxes)}.map(([left, top, width, height]) => {
      const { data } = context.getImageData(left, top, width, height);
      const [sums, counts] = [new Array(columns * rows).fill(0), new Array(columns * rows).fill(0)];
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const cell = Math.floor(y * rows / height) * columns + Math.floor(x * columns / width);
          const at = (y * width + x) * 4;
          sums[cell] += 0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2];
          counts[cell]++;
        }
      }
      return sums.map((sum, cell) => Math.round(sum / counts[cell]));
    });
  })()`;
}

/** What differs from the expected pictures, a line each; none where they look the same. */
export function comparePictures(found: readonly Picture[], expected: readonly Picture[]): string[] {
  const titles = (of: readonly Picture[]) => of.map(({ title }) => title).join(" | ");
  if (titles(found) !== titles(expected)) {
    return [`expected the figures ${titles(expected)}, found ${titles(found)}`];
  }
  return found.flatMap(({ title, cells }, index) => {
    const { mean, worst } = difference(cells, expected[index].cells);
    return mean <= TOLERANCE.mean && worst <= TOLERANCE.worst
      ? []
      : [`${title}: cells differ by ${mean.toFixed(2)} on average and ${worst} at most`];
  });
}

/** Between the cells of two pictures. */
export function difference(a: readonly number[], b: readonly number[]): { mean: number; worst: number } {
  const differences = a.map((cell, index) => Math.abs(cell - b[index]));
  return {
    mean: differences.reduce((total, value) => total + value, 0) / differences.length,
    worst: Math.max(...differences),
  };
}
