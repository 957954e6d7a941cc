/**
 * Buffer ranges as textures, for kernels that read an operand texel by texel (see `StorageBinding`). One texture for
 * each binding and format is enough: dispatches follow each other, so the next copy waits for the last reader.
 * @module
 */
import { type ElementType, TEXEL_ROW_LOG2 } from "../shaders/kernel.ts";
import type { BufferPool } from "./buffers.ts";
import type { BufferRange } from "./queue.ts";

/** A texture that holds a range's elements from its first texel on. */
export interface TexelTexture {
  /** Unique; keys bind groups. */
  readonly id: number;
  readonly view: GPUTextureView;
}

interface Slot extends TexelTexture {
  readonly texture: GPUTexture;
  readonly rows: number;
}

const ROW_TEXELS = 1 << TEXEL_ROW_LOG2;

const FORMATS: Partial<Record<ElementType, { format: GPUTextureFormat; bytes: number }>> = {
  f32: { format: "r32float", bytes: 4 },
  vec2u: { format: "rg32uint", bytes: 8 },
  vec4f: { format: "rgba32float", bytes: 16 },
};

/** Makes textures as large as needed, and records copies into them. */
export class TexelStage {
  readonly #slots = new Map<string, Slot>();
  readonly #outgrown: GPUTexture[] = [];
  #nextId = 0;
  /** Textures that were replaced by larger ones so far. */
  generation = 0;

  /** A stage without textures; their bytes count in the pool's budget. */
  constructor(private readonly device: GPUDevice, private readonly buffers: BufferPool) {}

  /**
   * Records the copy of a range into the texture of a binding.
   *
   * @param encoder outside a pass
   * @param range what to copy; its end may lie anywhere in a texel
   * @param place which binding of a kernel reads it, and how it names an element
   * @returns the texture, to bind
   * @throws {RangeError} when it has more rows than a texture can have on this adapter
   */
  copy(
    encoder: GPUCommandEncoder,
    range: BufferRange,
    place: { readonly binding: number; readonly type: ElementType },
  ): TexelTexture {
    const { bytes } = FORMATS[place.type]!;
    const count = Math.ceil(range.sizeBytes / bytes);
    const slot = this.texture(range, place);
    const wholeRows = Math.floor(count / ROW_TEXELS);
    const source = { buffer: range.allocation.buffer, bytesPerRow: ROW_TEXELS * bytes };
    const copyRows = (first: number, size: [number, number]) =>
      encoder.copyBufferToTexture(
        { ...source, offset: range.offsetBytes + first * source.bytesPerRow },
        { texture: slot.texture, origin: [0, first] },
        size,
      );
    if (wholeRows > 0) copyRows(0, [ROW_TEXELS, wholeRows]);
    if (count % ROW_TEXELS > 0) copyRows(wholeRows, [count % ROW_TEXELS, 1]);
    return slot;
  }

  /**
   * The texture that a range is copied into: made here where there is none, or one too small.
   *
   * @param range what it must hold
   * @param place which binding of a kernel reads it, and how it names an element
   * @returns the texture, to bind until {@link generation} changes
   * @throws {RangeError} when it has more rows than a texture can have on this adapter
   */
  texture(range: BufferRange, place: { readonly binding: number; readonly type: ElementType }): Slot {
    const count = Math.ceil(range.sizeBytes / FORMATS[place.type]!.bytes);
    return this.#slot(place, Math.ceil(count / ROW_TEXELS));
  }

  /** Destroys textures that were replaced by larger ones; after the submit that may have used them. */
  destroyOutgrown(): void {
    for (const texture of this.#outgrown) texture.destroy();
    this.#outgrown.length = 0;
  }

  #slot({ binding, type }: { binding: number; type: ElementType }, rows: number): Slot {
    const key = `${binding} ${type}`;
    const existing = this.#slots.get(key);
    if (existing && existing.rows >= rows) return existing;
    const limit = this.device.limits.maxTextureDimension2D;
    if (rows > limit) {
      throw new RangeError(
        `Cannot read an operand through a texture: expected at most ${limit} rows of ${ROW_TEXELS} elements on this ` +
          `adapter, found ${rows}`,
      );
    }
    // Powers of two: a run that grows slowly does not replace its textures at every step.
    const room = Math.min(limit, 2 ** Math.ceil(Math.log2(rows)));
    const { format, bytes } = FORMATS[type]!;
    this.buffers.reserveTexture(
      (room - (existing?.rows ?? 0)) * ROW_TEXELS * bytes,
      `texels of binding ${binding}`,
    );
    if (existing) {
      this.#outgrown.push(existing.texture);
      this.generation++;
    }
    const texture = this.device.createTexture({
      label: `texels ${key}`,
      size: [ROW_TEXELS, room],
      format,
      usage: GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST,
    });
    const slot = { id: this.#nextId++, texture, view: texture.createView(), rows: room };
    this.#slots.set(key, slot);
    return slot;
  }

  /** Destroys every texture. */
  destroy(): void {
    this.destroyOutgrown();
    for (const { texture } of this.#slots.values()) texture.destroy();
    this.#slots.clear();
  }
}
