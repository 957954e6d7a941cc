/**
 * A model of the hub, by a task of deno.json: fetched before the command starts, which has neither network nor token.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { REPO, startHubServer } from "../hub/hub_server.ts";
import { LAUNCHER } from "../launcher.ts";
import { DIGIT_PAIRS, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";
import type { LaunchInstead } from "./launch_instead.ts";
import type { Attempt } from "./probe.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

Deno.test({
  name: "a model of the hub is fetched once, and read by a process without network or token",
  ignore: Deno.build.os === "windows",
  async fn() {
    const folder = temporaryFolder();
    const model = join(folder, "model");
    await writeCheckpoint(model);
    const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
    const files = Object.fromEntries(
      [...Deno.readDirSync(model)].map(({ name }) => [name, Deno.readFileSync(join(model, name))]),
    );
    await using server = startHubServer({ files });
    const env = {
      NO_COLOR: "1",
      HF_ENDPOINT: server.endpoint,
      HF_HOME: folder,
      HF_TOKEN: "hf_secret",
      KEEL_HUB_HOSTS: server.cdn.slice("http://".length),
    };
    const deno = async (args: string[]) => {
      const output = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, env }).output();
      const [out, error] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
      assert.equal(output.code, 0, error);
      return { out, error };
    };
    const words = ["inspect", "--model", REPO, "--data", data];
    const first = await deno([...LAUNCHER, ...words]);
    assert.match(first.error, /^There is no folder tester\/tiny: downloading it from /);
    assert.ok(server.requests.some(({ authorization }) => authorization === "Bearer hf_secret"));
    const asked = server.requests.length;
    const second = await deno([...LAUNCHER, ...words]);
    assert.deepEqual(second, { out: first.out, error: "" });
    assert.equal(server.requests.length, asked, "the hub is not asked again");

    const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
    const attempts: Attempt[] = [
      ["fetch", server.endpoint],
      ["env", "HF_TOKEN"],
      ["env", "HF_ENDPOINT"],
      ["read", join(folder, "token")],
      ["list", join(folder, "hub")],
      ["write", join(folder, "hub", "models--tester--tiny", "refs", "main")],
      ["read", join(folder, "hub", "models--tester--tiny", "refs", "main")],
    ];
    const launch: LaunchInstead = [words, path("./probe.ts"), [JSON.stringify(attempts)]];
    const probe = await deno([
      ...LAUNCHER.slice(0, -1),
      path("./launch_instead.ts"),
      JSON.stringify(launch),
    ]);
    const verdicts = JSON.parse(probe.out);
    assert.equal(verdicts.pop(), "done", "what is fetched is read");
    assert.deepEqual(new Set(verdicts), new Set(["NotCapable"]));
  },
});
