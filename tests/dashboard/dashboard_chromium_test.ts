/**
 * The dashboard of a run under way, in a real browser.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Page } from "puppeteer-core";
import { chromiumTest, openPage } from "../chromium.ts";
import { startTraining, withFolder } from "./training.ts";

/** Waits until the page shows a step that comes after another, among its last values; returns it. */
async function stepAfter(page: Page, step: number): Promise<number> {
  const read = `(() => {
    const row = [...document.querySelectorAll("#last-values tr")].find((row) => row.innerText.startsWith("global_step"));
    const step = Number(row?.lastElementChild.innerText);
    return step > ${step} && step;
  })()`;
  const found = await page.waitForFunction(read, { timeout: 60_000 });
  return await found.jsonValue() as number;
}

const textOf = (page: Page, selector: string) =>
  page.$eval(selector, (element) => (element as unknown as { innerText: string }).innerText);

chromiumTest("figures follow a run to its end, and nothing else is asked or said", async (browser) => {
  await withFolder(async (folder) => {
    await using run = startTraining(folder, [
      ...["--dashboard", "--max-steps", "300", "--output", join(folder, "run")],
    ]);
    const url = await run.url;
    const view = { width: 1000, scheme: "dark" } as const;
    const { page, requests, complaints } = await openPage(browser, url, view);
    const early = await stepAfter(page, 0);
    const drawn = await page.$$eval(
      "#loss figure path",
      (paths) => paths.map((path) => path.getAttribute("d")),
    );
    const later = await stepAfter(page, early);
    assert.ok(later > early && later <= 300);
    const redrawn = await page.$$eval(
      "#loss figure path",
      (paths) => paths.map((path) => path.getAttribute("d")),
    );
    assert.notDeepEqual(redrawn, drawn, "the curves grew");
    assert.match(await textOf(page, ".state"), /^Under way$/);
    const background = await page.evaluate("getComputedStyle(document.body).backgroundColor") as string;
    assert.match(background, /^rgb\((?:[0-9]|[1-4][0-9]), /, "dark where the system is");
    await page.waitForSelector(".state.finished", { timeout: 60_000 });
    assert.equal((await run.end).code, 0);
    assert.equal(await stepAfter(page, 299), 300);
    assert.ok(await page.$("#samples table"), "the answers before and after are there");
    assert.equal(await textOf(page, "#connection"), "", "the end is no lost connection");
    assert.deepEqual(complaints, []);
    assert.deepEqual(requests.filter((request) => !request.startsWith(url)), []);
    assert.ok(requests.includes(`${url}events`));
  });
});

chromiumTest("a lost connection is told, and found again", async (browser) => {
  await withFolder(async (folder) => {
    await using run = startTraining(folder, [
      ...["--dashboard", "--max-steps", "2000", "--output", join(folder, "run")],
    ]);
    const url = await run.url;
    await using relay = startRelay(Number(new URL(url).port));
    const { pathname } = new URL(url);
    const { page } = await openPage(browser, `http://127.0.0.1:${relay.port}${pathname}`, {
      ...{ width: 400, scheme: "light" },
    });
    const before = await stepAfter(page, 0);
    relay.cut();
    await page.waitForFunction(`document.getElementById("connection").innerText.includes("Trying again")`);
    await page.waitForFunction(`document.getElementById("connection").innerText === ""`);
    assert.ok(await stepAfter(page, before) > before);
    run.stop();
    await page.waitForSelector(".state.stopped", { timeout: 60_000 });
    assert.match(await textOf(page, "#status"), /Stopped at dpo, step \d+ of 2000/);
    assert.equal((await run.end).code, 130);
  });
});

chromiumTest("a wrong token shows nothing", async (browser) => {
  await withFolder(async (folder) => {
    await using run = startTraining(folder, [
      "--dashboard",
      "--max-steps",
      "2000",
      "--output",
      join(folder, "run"),
    ]);
    const url = await run.url;
    const page = await browser.newPage();
    const response = await page.goto(`${new URL(url).origin}/${"0".repeat(48)}/`);
    assert.equal(response?.status(), 404);
    assert.equal(await textOf(page, "body"), "Not found");
  });
});

/** Passes bytes on to a port of this machine until its connections are cut. */
function startRelay(target: number): { port: number; cut(): void } & AsyncDisposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = new Set<Deno.Conn>();
  const pass = async (from: Deno.Conn, to: Deno.Conn) => {
    // Either side may be cut at any time: that is what it is for.
    await from.readable.pipeTo(to.writable).catch(() => {});
  };
  const accept = async () => {
    for await (const connection of listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: target }).catch(() => undefined);
      if (!server) {
        connection.close();
        continue;
      }
      open.add(connection).add(server);
      void pass(connection, server);
      void pass(server, connection);
    }
  };
  const accepting = accept();
  return {
    port: listener.addr.port,
    cut() {
      for (const connection of open) {
        try {
          connection.close();
        } catch (error) {
          // The other end was faster.
          assert.ok(error instanceof Deno.errors.BadResource, String(error));
        }
      }
      open.clear();
    },
    async [Symbol.asyncDispose]() {
      this.cut();
      listener.close();
      await accepting;
    },
  };
}
