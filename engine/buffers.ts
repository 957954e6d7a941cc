/**
 * GPU memory: a pool of size-bucketed buffers under a byte budget, and scopes that give buffers back. Nothing is
 * left to the garbage collector, which does not see GPU memory.
 * @module
 */
import { emptyStats, LASTING, type MemoryCategory, type MemoryStats } from "./memory_stats.ts";

export {
  type CategoryStats,
  MEMORY_CATEGORIES,
  type MemoryCategory,
  type MemoryStats,
} from "./memory_stats.ts";

/**
 * Thrown before an allocation that would pass the byte budget.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu({ memoryBudgetBytes: 2 ** 20 });
 * assert.throws(() => gpu.allocate(2 ** 21, "too much"), MemoryBudgetError);
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export class MemoryBudgetError extends RangeError {
  /** The class, as messages print it. */
  override name = "MemoryBudgetError";
}

/**
 * A buffer of the pool, shared by reference count.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const allocation = gpu.allocate(1024, "example");
 * allocation.retain(); // a second holder
 * assert(allocation.isShared);
 * allocation.release();
 * allocation.release();
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export class Allocation {
  #references = 1;

  /** Only a pool or an arena makes allocations. */
  constructor(
    /** Where the buffer goes when its last holder lets go of it. */
    readonly home: BufferPool | BufferArena,
    readonly buffer: GPUBuffer,
    readonly sizeBytes: number,
    /** What it is for. */
    readonly category: MemoryCategory,
    /** Unique in its pool; keys cached bind groups. */
    readonly id: number,
  ) {}

  /** True when more than one holder would see a write. */
  get isShared(): boolean {
    return this.#references > 1;
  }

  /** Adds a holder. */
  retain(): this {
    if (this.#references === 0) throw new Error(`Cannot retain buffer ${this.id}: it was already released`);
    this.#references++;
    return this;
  }

  /** Removes a holder; the last one gives the buffer back to the pool. */
  release(): void {
    if (this.#references === 0) throw new Error(`Cannot release buffer ${this.id}: it was already released`);
    if (--this.#references === 0) this.home.giveBack(this);
  }

  /** Makes a free buffer live again; only its home calls this. */
  revive(): this {
    this.#references = 1;
    return this;
  }
}

/** Rounds up to a quarter of a power of two, at least 256 bytes, so that near sizes share buffers. */
export function bucketBytes(sizeBytes: number): number {
  if (sizeBytes <= 256) return 256;
  const step = 2 ** Math.max(8, Math.floor(Math.log2(sizeBytes - 1)) - 2);
  return Math.ceil(sizeBytes / step) * step;
}

/**
 * Hands out storage buffers, reusing those of the same bucket.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const first = gpu.buffers.acquire(1000, "first");
 * first.release();
 * const second = gpu.buffers.acquire(1020, "second");
 * assert(second === first); // the same bucket, so the same buffer
 * ```
 */
export class BufferPool {
  readonly #free = new Map<string, Allocation[]>();
  /** What the pool holds now. */
  readonly stats: MemoryStats = emptyStats();
  readonly #fixed = new Set<Allocation>();
  readonly #trimmed: GPUBuffer[] = [];
  #nextId = 0;

  /**
   * An empty pool.
   *
   * @param device where buffers are made
   * @param options.budgetBytes upper bound of all buffers' bytes
   * @param options.maxBufferBytes the device's limit for one binding
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly options: {
      budgetBytes: number;
      maxBufferBytes: number;
      /** Told when free buffers were destroyed. */
      onTrim?: () => void;
    },
  ) {}

  /** Upper bound of all buffers' bytes. */
  get budgetBytes(): number {
    return this.options.budgetBytes;
  }

  /**
   * Hands out a buffer.
   *
   * @param sizeBytes how much is needed
   * @param label names the buffer in the error
   * @param category what it is for
   * @returns an allocation of at least that size, contents undefined, owned by the caller
   * @throws {MemoryBudgetError} when the budget would be passed
   * @throws {RangeError} when one binding cannot be that large on this adapter
   */
  acquire(sizeBytes: number, label: string, category: MemoryCategory = "activations"): Allocation {
    return this.acquireFor(this, sizeBytes, { label, category });
  }

  /** {@link acquire} for an arena, which the allocation goes back to; only an arena calls this. */
  acquireFor(
    home: BufferPool | BufferArena,
    sizeBytes: number,
    { label, category }: { label: string; category: MemoryCategory },
  ): Allocation {
    const size = this.roundUp(sizeBytes, { label, category });
    const free = takeLowest(this.#free.get(freeKey(size, category)));
    if (!free) this.#reserve(size, label, category);
    this.#use(size, category);
    if (free && home === this) return free.revive();
    if (free) return new Allocation(home, free.buffer, size, category, this.#nextId++);
    const buffer = this.device.createBuffer({
      label: `pool ${size} B`,
      size,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    return new Allocation(home, buffer, size, category, this.#nextId++);
  }

  /** Takes an arena's buffer back; only an arena calls this. */
  adopt({ buffer, sizeBytes, category }: Allocation): void {
    this.giveBack(new Allocation(this, buffer, sizeBytes, category, this.#nextId++));
  }

  /**
   * Makes a buffer outside the buckets that lives as long as the pool, or until {@link destroyFixed}: uniform pages and
   * staging.
   *
   * @throws {MemoryBudgetError} when the budget would be passed
   */
  createFixed(sizeBytes: number, usage: GPUBufferUsageFlags, label: string): Allocation {
    this.#reserve(sizeBytes, label, "buffers");
    const buffer = this.device.createBuffer({ label, size: sizeBytes, usage });
    const allocation = new Allocation(this, buffer, sizeBytes, "buffers", this.#nextId++);
    this.#fixed.add(allocation);
    return allocation;
  }

  /** Gives a fixed buffer up. Recorded work may still use it: it goes with the next submit. */
  destroyFixed(allocation: Allocation): void {
    if (!this.#fixed.delete(allocation)) throw new Error("Cannot destroy a buffer: expected a fixed one");
    this.stats.totalBytes -= allocation.sizeBytes;
    this.stats.categories[allocation.category].totalBytes -= allocation.sizeBytes;
    this.#trimmed.push(allocation.buffer);
  }

  /**
   * Counts a texture's bytes in the budget; textures live as long as the pool.
   *
   * @throws {MemoryBudgetError} when the budget would be passed
   */
  reserveTexture(sizeBytes: number, label: string): void {
    this.#reserve(sizeBytes, label, "buffers");
  }

  /** Destroys every buffer that is free or fixed; those in use go with the device. */
  destroy(): void {
    this.trim();
    this.destroyTrimmed();
    for (const allocation of this.#fixed) allocation.buffer.destroy();
  }

  /** Destroys what {@link trim} gave up; only the queue calls this, after a submit. */
  destroyTrimmed(): void {
    for (const buffer of this.#trimmed) buffer.destroy();
    this.#trimmed.length = 0;
  }

  /** Takes back a buffer whose last holder released it; only `Allocation` calls this. */
  giveBack(allocation: Allocation): void {
    this.#use(-allocation.sizeBytes, allocation.category);
    keepFree(this.#free, allocation);
  }

  /** Gives up the buffers that nobody holds. Recorded work may still use them: they go with the next submit. */
  trim(): void {
    for (const free of this.#free.values()) {
      for (const allocation of free) {
        this.#trimmed.push(allocation.buffer);
        this.stats.totalBytes -= allocation.sizeBytes;
        this.stats.categories[allocation.category].totalBytes -= allocation.sizeBytes;
      }
    }
    this.#free.clear();
    this.options.onTrim?.();
  }

  #use(sizeBytes: number, category: MemoryCategory): void {
    this.stats.usedBytes += sizeBytes;
    this.stats.categories[category].usedBytes += sizeBytes;
  }

  #reserve(sizeBytes: number, label: string, category: MemoryCategory): void {
    const { stats } = this;
    const { budgetBytes } = this.options;
    if (stats.totalBytes + sizeBytes > budgetBytes) this.trim();
    if (stats.totalBytes + sizeBytes > budgetBytes) {
      throw new MemoryBudgetError(
        `Cannot allocate ${label}: expected at most ${budgetBytes} bytes of GPU memory in all (the budget), ` +
          `found ${stats.totalBytes} in use and ${sizeBytes} more wanted`,
      );
    }
    stats.created++;
    stats.totalBytes += sizeBytes;
    stats.categories[category].totalBytes += sizeBytes;
    if (stats.totalBytes <= stats.peakBytes) return;
    stats.peakBytes = stats.totalBytes;
    for (const one of Object.values(stats.categories)) one.peakBytes = one.totalBytes;
  }

  /** The size of the buffer that such a request gets. */
  roundUp(sizeBytes: number, { label, category }: { label: string; category: MemoryCategory }): number {
    const { maxBufferBytes } = this.options;
    if (sizeBytes > maxBufferBytes) {
      throw new RangeError(
        `Cannot allocate ${label}: expected at most ${maxBufferBytes} bytes in one binding on this adapter, ` +
          `found ${sizeBytes}`,
      );
    }
    // What lives as long as the run gains nothing from sizes that others share.
    const size = LASTING.has(category) ? Math.ceil(sizeBytes / 256) * 256 : bucketBytes(sizeBytes);
    return Math.min(size, maxBufferBytes);
  }
}

function freeKey(sizeBytes: number, category: MemoryCategory): string {
  return `${category} ${sizeBytes}`;
}

function keepFree(free: Map<string, Allocation[]>, allocation: Allocation): void {
  const key = freeKey(allocation.sizeBytes, allocation.category);
  const same = free.get(key);
  if (same) same.push(allocation);
  else free.set(key, [allocation]);
}

/**
 * The free buffer of the lowest id: a step that asks for the same sizes in the same order then gets the same buffers,
 * and its cached bind groups fit.
 */
function takeLowest(free: Allocation[] | undefined): Allocation | undefined {
  if (!free || free.length === 0) return undefined;
  let lowest = 0;
  for (let index = 1; index < free.length; index++) if (free[index].id < free[lowest].id) lowest = index;
  const taken = free[lowest];
  free[lowest] = free[free.length - 1];
  free.pop();
  return taken;
}

/**
 * Buffers that a pool lends for as long as recorded commands name them: what is given back here is handed out here
 * again, and to nobody else. They count as used in the pool until the arena is disposed.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * {
 *   using arena = new BufferArena(gpu.buffers);
 *   arena.acquire(256, "activation").release();
 *   assert.equal(gpu.stats().memory.usedBytes, 256); // free, but only for this arena
 * }
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export class BufferArena implements Disposable {
  readonly #free = new Map<string, Allocation[]>();
  #open = true;

  /**
   * An empty arena.
   *
   * @param pool where its buffers come from and go back to
   */
  constructor(private readonly pool: BufferPool) {}

  /**
   * Hands out a buffer.
   *
   * @param sizeBytes how much is needed
   * @param label names the buffer in the error
   * @param category what it is for
   * @returns an allocation of at least that size, contents undefined, owned by the caller
   * @throws {MemoryBudgetError} when the pool's budget would be passed
   */
  acquire(sizeBytes: number, label: string, category: MemoryCategory = "activations"): Allocation {
    const use = { label, category };
    const free = takeLowest(this.#free.get(freeKey(this.pool.roundUp(sizeBytes, use), category)));
    return free?.revive() ?? this.pool.acquireFor(this, sizeBytes, use);
  }

  /** Takes back a buffer whose last holder released it; only `Allocation` calls this. */
  giveBack(allocation: Allocation): void {
    if (!this.#open) return this.pool.adopt(allocation);
    keepFree(this.#free, allocation);
  }

  /** Gives all buffers back to the pool: the free ones now, the others when their last holder releases them. */
  [Symbol.dispose](): void {
    this.#open = false;
    for (const free of this.#free.values()) for (const allocation of free) this.pool.adopt(allocation);
    this.#free.clear();
  }
}
