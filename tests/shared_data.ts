import { fileURLToPath } from "node:url";
import { existsSync } from "node:fs";

/**
 * Where the published models, tokenizers and vectors lie that some tests compare with: the folder in KEEL_SHARED_DATA,
 * else ../shared/data beside the project. They are not part of the project; tests that need them are ignored, visibly,
 * where the folder is absent.
 */
export const SHARED_DATA: string = Deno.env.get("KEEL_SHARED_DATA") ??
  fileURLToPath(new URL("../../shared/data", import.meta.url));

/** Whether the folder is there. */
export const HAS_SHARED_DATA: boolean = existsSync(SHARED_DATA);

/** Registers a test that needs the shared data and says so in its name. */
export function testWithSharedData(name: string, body: () => void | Promise<void>): void {
  Deno.test({ name: `${name} (needs shared data)`, ignore: !HAS_SHARED_DATA, fn: body });
}
