/**
 * Modules of this project in a page, bundled as whoever embeds them would.
 *
 * @module
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { Browser } from "puppeteer-core";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/**
 * Calls a function of a module in a page.
 *
 * @param browser with WebGPU
 * @param options.entry the module, from the project's root
 * @param options.name an exported function without parameters, whose result is plain JSON
 * @returns what it returned
 * @throws what it threw, and what the page complained of
 */
export async function callInBrowser<Result>(
  browser: Browser,
  { entry, name }: { entry: string; name: string },
): Promise<Result> {
  const script = await bundle(entry);
  await using server = serve({
    // WebGPU is there only in a secure context: a page of this machine is one.
    "/": { body: "<!doctype html><title>Keel</title>", type: "text/html" },
    "/bundle.js": { body: script, type: "text/javascript" },
    "/favicon.ico": { body: "", type: "image/x-icon" },
  });
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`http://127.0.0.1:${server.addr.port}/`);
  const call = async (path: string, name: string) => (await import(path))[name]();
  const result = await page.evaluate(call, "/bundle.js", name);
  await page.close();
  assert.deepEqual(complaints, []);
  return result;
}

/** One script of a module and all that it imports; what is not for browsers cannot be bundled. */
async function bundle(entry: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform", "browser", entry],
    cwd: ROOT,
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

function serve(files: Readonly<Record<string, { body: string; type: string }>>) {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, ({ url }) => {
    const file = files[new URL(url).pathname];
    return file
      ? new Response(file.body, { headers: { "content-type": file.type } })
      : new Response(null, { status: 404 });
  });
}
