/**
 * Work that is asked for more often than it should be done.
 * @module
 */

/** Of the time between two starts, the work takes this share at most. */
const MOST_SHARE = 0.1;

/** Work under a limit. */
export interface Throttle {
  /** Has the work done as soon as it is due; what is asked for meanwhile is done with it. */
  request(): void;
  /** Does the work a last time, when what is under way is done; later requests do nothing. */
  finish(): Promise<void>;
}

/**
 * Limits how often work is done, and what it takes in all.
 *
 * @param work that must not fail; it never runs twice at a time
 * @param options.leastMs from one start to the next
 */
export function createThrottle(
  work: () => void | Promise<void>,
  { leastMs }: { leastMs: number },
): Throttle {
  let dueAt = -Infinity;
  let isAskedFor = false;
  let isFinished = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let underWay: Promise<void> | undefined;
  async function run(): Promise<void> {
    timer = undefined;
    isAskedFor = false;
    const start = performance.now();
    await work();
    const tookMs = performance.now() - start;
    dueAt = start + Math.max(leastMs, tookMs / MOST_SHARE);
    underWay = undefined;
    if (isAskedFor) schedule();
  }
  function schedule(): void {
    isAskedFor = true;
    if (isFinished || timer !== undefined || underWay) return;
    timer = setTimeout(() => underWay = run(), Math.max(0, dueAt - performance.now()));
  }
  return {
    request: schedule,
    async finish() {
      isFinished = true;
      clearTimeout(timer);
      await underWay;
      await work();
    },
  };
}
