import assert from "node:assert/strict";
import { join } from "node:path";
import { openRunLogs } from "../../train/logs/run_logs.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { readScalars } from "./read_events.ts";

Deno.test("a run that goes on knows its last record, and all files are those of the lines that it kept", () => {
  const folder = temporaryFolder();
  const open = (keepBytes?: number) =>
    openRunLogs(folder, { csv: true, tensorboard: true, isByPhase: false, keepBytes });
  let bytes: number;
  {
    using logs = open();
    assert.ok(!logs.last);
    logs.append({ phase: "dpo", global_step: 3, loss: 1 });
    bytes = logs.flush();
    logs.append({ phase: "dpo", global_step: 5, loss: 2 });
    assert.deepEqual(logs.last, { phase: "dpo", global_step: 5, loss: 2 });
  }
  {
    using logs = open(bytes);
    assert.deepEqual(logs.last, { phase: "dpo", global_step: 3, loss: 1 });
    logs.append({ phase: "dpo", global_step: 6, loss: 4 });
    logs.flush();
  }
  const read = (name: string) => Deno.readTextFileSync(join(folder, name));
  assert.equal(read("metrics.csv"), "phase,global_step,loss\r\ndpo,3,1\r\ndpo,6,4\r\n");
  assert.deepEqual(readScalars(join(folder, "tensorboard")), new Map([["train/loss", [[3, 1], [6, 4]]]]));
  // From the start, where no checkpoint was whole.
  using logs = open(0);
  assert.ok(!logs.last);
  logs.append({ phase: "dpo", global_step: 3, loss: 8 });
  assert.equal(read("metrics.csv"), "phase,global_step,loss\r\ndpo,3,8\r\n");
  assert.deepEqual(readScalars(join(folder, "tensorboard")), new Map([["train/loss", [[3, 8]]]]));
});
