/**
 * TensorBoard's event files read by other code than writes them: the frames by the format's description, the messages by
 * protobufjs with the parts of TensorBoard's own schema that a run uses.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import protobuf from "protobufjs";

/** From tensorboard/compat/proto/event.proto and summary.proto of TensorBoard 2.21.0. */
const SCHEMA = `
  syntax = "proto3";
  package tensorboard;
  message Event {
    double wall_time = 1;
    int64 step = 2;
    oneof what {
      string file_version = 3;
      Summary summary = 5;
      SessionLog session_log = 7;
    }
  }
  message SessionLog {
    enum SessionStatus { STATUS_UNSPECIFIED = 0; START = 1; STOP = 2; CHECKPOINT = 3; }
    SessionStatus status = 1;
    string checkpoint_path = 2;
    string msg = 3;
  }
  message Summary {
    message Value {
      string node_name = 7;
      string tag = 1;
      oneof value { float simple_value = 2; }
    }
    repeated Value value = 1;
  }
`;

const EventMessage = protobuf.parse(SCHEMA, { keepCase: true }).root.lookupType("tensorboard.Event");

/** An event as protobufjs decodes it. */
export interface DecodedEvent {
  readonly wall_time: number;
  readonly step: number;
  readonly file_version?: string;
  readonly summary?: { readonly value: readonly { readonly tag: string; readonly simple_value: number }[] };
  readonly session_log?: { readonly status: string };
}

/** @returns the events of a file, every checksum right and no byte left over */
export function readEventFile(path: string): DecodedEvent[] {
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  const events: DecodedEvent[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = Number(view.getBigUint64(at, true));
    assert.equal(view.getUint32(at + 8, true), maskedCrc(bytes.subarray(at, at + 8)), `length at ${at}`);
    const payload = bytes.subarray(at + 12, at + 12 + length);
    assert.equal(view.getUint32(at + 12 + length, true), maskedCrc(payload), `payload at ${at}`);
    const decoded = EventMessage.toObject(EventMessage.decode(payload), { longs: Number, enums: String });
    events.push({ step: 0, ...decoded } as DecodedEvent);
    at += 16 + length;
  }
  assert.equal(at, bytes.length);
  return events;
}

/** @returns the event files of a folder, in the order in which TensorBoard reads them */
export function eventFiles(folder: string): string[] {
  const names = [...Deno.readDirSync(folder)].filter(({ isFile }) => isFile).map(({ name }) => name);
  assert.ok(names.every((name) => name.includes("tfevents")), names.join());
  return names.sort().map((name) => join(folder, name));
}

/**
 * What TensorBoard shows of a folder, by tag: step and value. A start voids what was read of its step and later ones.
 *
 * @param folder of one run's event files
 */
export function readScalars(folder: string): Map<string, [step: number, value: number][]> {
  const scalars = new Map<string, [number, number][]>();
  for (const { step, summary, session_log } of eventFiles(folder).flatMap(readEventFile)) {
    if (session_log?.status === "START") {
      for (const [tag, points] of scalars) scalars.set(tag, points.filter(([at]) => at < step));
    }
    for (const { tag, simple_value } of summary?.value ?? []) {
      scalars.set(tag, [...scalars.get(tag) ?? [], [step, simple_value]]);
    }
  }
  return scalars;
}

/** CRC-32C bit by bit (RFC 3720, B.4), then TFRecord's mask. */
function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 0x82f63b78 : crc >>> 1;
  }
  crc = ~crc >>> 0;
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
}
