/**
 * Where uniforms and small uploads are gathered until a submit: pages that are written once and rewound.
 * @module
 */
import type { Allocation } from "./buffers.ts";

/** A buffer, and the bytes that it gets at the next submit. */
export interface Page {
  readonly buffer: GPUBuffer;
  readonly allocation: Allocation;
  readonly mirror: Uint8Array<ArrayBuffer>;
  used: number;
}

/** Allocates from pages that are rewound at each submit. */
export class UploadArena {
  readonly pages: Page[] = [];
  #current = 0;

  constructor(
    private readonly makePage: (sizeBytes: number) => Page,
    private readonly pageBytes: number,
    private readonly alignment: number,
  ) {}

  /** A place for so many bytes, in a page that has room or a new one. */
  take(sizeBytes: number): { page: Page; offsetBytes: number } {
    for (; this.#current < this.pages.length; this.#current++) {
      const page = this.pages[this.#current];
      const offsetBytes = Math.ceil(page.used / this.alignment) * this.alignment;
      if (offsetBytes + sizeBytes <= page.mirror.length) {
        page.used = offsetBytes + sizeBytes;
        return { page, offsetBytes };
      }
    }
    const page = this.makePage(Math.max(this.pageBytes, sizeBytes));
    page.used = sizeBytes;
    this.pages.push(page);
    return { page, offsetBytes: 0 };
  }

  /** Sends every page, and rewinds. */
  write(queue: GPUQueue): void {
    for (const page of this.pages) {
      const length = Math.ceil(page.used / 4) * 4;
      if (length > 0) queue.writeBuffer(page.buffer, 0, page.mirror, 0, length);
      page.used = 0;
    }
    this.#current = 0;
  }
}
