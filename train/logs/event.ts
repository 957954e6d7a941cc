/**
 * TensorFlow's Event message, as far as scalars need it, in Protocol Buffers' wire format. Field numbers are those of
 * event.proto and summary.proto in tensorboard/compat/proto.
 * @module
 */

/** What is written of an event; one of its kinds of content. */
export interface Event {
  /** Seconds since 1970. */
  readonly wallTime: number;
  /** An integer, not negative. */
  readonly step: number;
  /** Of the first event of a file: `brain.Event:2`. */
  readonly fileVersion?: string;
  /** Numbers by tag; kept as f32, as TensorBoard's own writers keep them. */
  readonly scalars?: Readonly<Record<string, number>>;
  /** Tells that a run starts again at this step: what was read of it and later ones is void. */
  readonly isStart?: boolean;
}

const VARINT = 0;
const FIXED_64 = 1;
const BYTES = 2;
const FIXED_32 = 5;

/** SessionLog.SessionStatus. */
const START = 1;

/**
 * Encodes an event.
 *
 * @param event what it tells
 * @returns its bytes, fields in the order of their numbers
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual([...encodeEvent({ wallTime: 0, step: 300 })], [0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0xac, 0x02]);
 * ```
 */
export function encodeEvent(event: Event): Uint8Array {
  const { wallTime, step, fileVersion, scalars, isStart } = event;
  const bytes = [...key(1, FIXED_64), ...float64(wallTime), ...key(2, VARINT), ...varint(step)];
  if (fileVersion !== undefined) bytes.push(...text(3, fileVersion));
  if (scalars !== undefined) {
    const values = Object.entries(scalars).flatMap(([tag, value]) =>
      message(1, [...text(1, tag), ...key(2, FIXED_32), ...float32(value)])
    );
    bytes.push(...message(5, values));
  }
  if (isStart) bytes.push(...message(7, [...key(1, VARINT), ...varint(START)]));
  return Uint8Array.from(bytes);
}

/** Where {@link encodeEvent} puts the step: behind the key and the 8 bytes of the time, and a key of its own. */
const STEP_OFFSET = 10;

/**
 * The step of an event that {@link encodeEvent} wrote.
 *
 * @param bytes of the event
 */
export function stepOf(bytes: Uint8Array): number {
  let step = 0;
  for (let index = STEP_OFFSET, scale = 1; index < bytes.length; index++, scale *= 128) {
    step += (bytes[index] & 0x7f) * scale;
    if (bytes[index] < 0x80) break;
  }
  return step;
}

function key(field: number, wireType: number): number[] {
  return varint(field * 8 + wireType);
}

/** Seven bits a byte, the lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push(value % 128 + 128);
  return [...bytes, value];
}

function message(field: number, bytes: readonly number[]): number[] {
  return [...key(field, BYTES), ...varint(bytes.length), ...bytes];
}

function text(field: number, value: string): number[] {
  return message(field, [...new TextEncoder().encode(value)]);
}

function float64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value, true);
  return bytes;
}

function float32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return bytes;
}
