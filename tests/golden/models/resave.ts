/**
 * Loads golden checkpoints and saves them again, for check_saved.py to hold against transformers.
 *
 *     deno run -A tests/golden/models/resave.ts <folder> [name ...]
 *
 * @module
 */
import { join } from "node:path";
import { openGpu } from "../../../engine/gpu.ts";
import { loadModel, saveModel } from "../../../train/models/model_files.ts";
import { ensureAdapter } from "../../../train/software_driver.ts";
import { modelFolder } from "../../tiny_model.ts";
import { goldenNames, readGolden } from "./golden.ts";

const [output, ...asked] = Deno.args;
const names = asked.length > 0 ? asked : goldenNames().filter((name) => !/_lora$/.test(name));
await ensureAdapter();
using gpu = await openGpu();
for (const name of names) {
  const { folder } = await readGolden(name);
  const parts = Array.from(Deno.readDirSync(folder), ({ name }) => name)
    .filter((file) => /^(config\.json|model.*)$/.test(file));
  const files = Object.fromEntries(parts.map((file) => [file, join(folder, file)]));
  const { model, tokenizer } = await loadModel(gpu, modelFolder(files, 48), { trainable: false });
  using _ = model;
  await saveModel(join(output, name), model, { tokenizer });
}
