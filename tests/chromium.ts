/**
 * A real browser for tests, where the machine has one.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer, { type Browser, type Page } from "puppeteer-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** KEEL_CHROMIUM, else the first of the usual names on PATH. */
const EXECUTABLE = Deno.env.get("KEEL_CHROMIUM") ??
  (Deno.env.get("PATH") ?? "").split(delimiter).flatMap((folder) => NAMES.map((name) => join(folder, name)))
    .find((path) => existsSync(path));

/** Switches for pictures that are the same on every machine. */
const PICTURES = [
  "--disable-gpu",
  "--hide-scrollbars",
  "--force-device-scale-factor=1",
  "--force-color-profile=srgb",
];

/** Switches for WebGPU in software, whatever the machine has; and nothing that Chromium fetches for itself. */
const WEB_GPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--ignore-gpu-blocklist",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Registers a test that needs Chromium and says so in its name; ignored, visibly, where there is none.
 *
 * @param name of the test
 * @param body the test
 * @param options.webGpu whether pages compute; else they are looked at
 */
export function chromiumTest(
  name: string,
  body: (browser: Browser) => Promise<void>,
  options: { webGpu?: boolean } = {},
): void {
  Deno.test({
    name: `${name} (needs Chromium)`,
    ignore: EXECUTABLE === undefined,
    async fn() {
      const browser = await openBrowser(options.webGpu ? WEB_GPU : PICTURES);
      try {
        await body(browser);
      } finally {
        await browser.close();
      }
    },
  });
}

/** Starts it without a window. */
async function openBrowser(switches: readonly string[]): Promise<Browser> {
  return await puppeteer.launch({
    executablePath: EXECUTABLE,
    pipe: true,
    args: [
      ...switches,
      // Chromium refuses to start its sandbox as root.
      ...(Deno.build.os === "linux" && Deno.uid() === 0 ? ["--no-sandbox"] : []),
    ],
  });
}

/** How a page is looked at. */
export interface View {
  readonly width: number;
  readonly scheme: "light" | "dark";
}

/** A page that is open, with what it asked for and complained of. */
export interface OpenPage {
  readonly page: Page;
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
}

/** Opens a file of this machine, or a page of a server on it. */
export async function openPage(browser: Browser, place: string, { width, scheme }: View): Promise<OpenPage> {
  const page = await browser.newPage();
  const [requests, complaints]: [string[], string[]] = [[], []];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport({ width, height: 900 });
  const address = place.startsWith("http://127.0.0.1:") ? place : pathToFileURL(place).href;
  await page.goto(address, { waitUntil: "load" });
  return { page, requests, complaints };
}
