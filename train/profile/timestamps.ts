/**
 * The time that the GPU takes for each dispatch, from timestamp queries.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { DispatchObserver, ObservedDispatch } from "../../engine/queue.ts";
import { ConfigError } from "../errors.ts";
import { type Cost, type CostContext, costOf } from "./costs.ts";

/** All dispatches of one kernel. */
export interface KernelTime extends Cost {
  readonly name: string;
  readonly dispatches: number;
  /** Sum over its dispatches. */
  readonly ns: number;
}

/** Observes a device's queue; make one with {@link observeTimes}. */
export interface TimeObserver extends Disposable {
  /** What each dispatch costs depends on it; changed before a batch that differs is recorded. */
  context: CostContext;
  /**
   * Waits for everything submitted.
   *
   * @returns one entry a kernel, in the order of their first dispatch
   */
  read(): Promise<KernelTime[]>;
}

/** Queries of a set: the most that WebGPU allows. */
const SET_QUERIES = 4096;

/** Two queries each: before and after. */
const SET_DISPATCHES = SET_QUERIES / 2;

interface QuerySet {
  readonly set: GPUQuerySet;
  readonly resolved: GPUBuffer;
}

interface Part {
  readonly staging: GPUBuffer;
  readonly dispatches: readonly { name: string; cost: Cost }[];
}

/**
 * Times every dispatch from now until it is disposed. Each gets a compute pass of its own, so a step takes longer than
 * unobserved; the times are those between the passes' beginnings and ends.
 *
 * @param gpu the device
 * @param context of the costs
 * @throws {ConfigError} when the adapter has no timestamp queries
 */
export function observeTimes(gpu: Gpu, context: CostContext): TimeObserver {
  requireTimestamps(gpu);
  const sets: QuerySet[] = [];
  const parts: Part[] = [];
  let pending: { name: string; cost: Cost }[] = [];
  const observer: TimeObserver & DispatchObserver = {
    context,
    onDispatch(dispatch: ObservedDispatch) {
      const index = pending.length % SET_DISPATCHES;
      const { set } = sets[Math.floor(pending.length / SET_DISPATCHES)] ?? addSet();
      pending.push({ name: dispatch.name, cost: costOf(dispatch, observer.context) });
      return { querySet: set, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 };
    },
    onSubmit(encoder) {
      for (let start = 0; start < pending.length; start += SET_DISPATCHES) {
        const dispatches = pending.slice(start, start + SET_DISPATCHES);
        const { set, resolved } = sets[start / SET_DISPATCHES];
        const sizeBytes = dispatches.length * 16;
        const staging = gpu.device.createBuffer({
          label: "timestamps",
          size: sizeBytes,
          usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        });
        encoder.resolveQuerySet(set, 0, dispatches.length * 2, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, staging, 0, sizeBytes);
        parts.push({ staging, dispatches });
      }
      pending = [];
    },
    async read() {
      const times = new Map<string, KernelTime>();
      for (const { staging, dispatches } of parts.splice(0)) {
        await staging.mapAsync(GPUMapMode.READ);
        const stamps = new BigUint64Array(staging.getMappedRange().slice(0));
        staging.destroy();
        dispatches.forEach(({ name, cost }, index) => {
          const ns = Number(stamps[2 * index + 1] - stamps[2 * index]);
          times.set(name, addTime(times.get(name), { name, dispatches: 1, ns, ...cost }));
        });
      }
      gpu.check();
      return [...times.values()];
    },
    [Symbol.dispose]() {
      if (gpu.queue.observer === observer) gpu.queue.observer = null;
      for (const { set, resolved } of sets) {
        set.destroy();
        resolved.destroy();
      }
      for (const { staging } of parts) staging.destroy();
    },
  };
  const addSet = (): QuerySet => {
    const added = {
      set: gpu.device.createQuerySet({ label: "timestamps", type: "timestamp", count: SET_QUERIES }),
      resolved: gpu.device.createBuffer({
        label: "timestamps",
        size: SET_QUERIES * 8,
        usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
      }),
    };
    sets.push(added);
    return added;
  };
  gpu.queue.observer = observer;
  return observer;
}

function requireTimestamps({ adapter }: Gpu): void {
  if (adapter.features.includes("timestamp-query")) return;
  throw new ConfigError(
    `Cannot profile: expected an adapter with timestamp queries (feature timestamp-query), found ${adapter.name} ` +
      `with ${adapter.features.join(", ") || "no optional feature"}`,
  );
}

/** A kernel's FLOPs are unknown as soon as those of one dispatch are. */
function addTime(sum: KernelTime | undefined, one: KernelTime): KernelTime {
  if (!sum) return one;
  return {
    ...sum,
    dispatches: sum.dispatches + one.dispatches,
    ns: sum.ns + one.ns,
    bytes: sum.bytes + one.bytes,
    flops: sum.flops === undefined || one.flops === undefined ? undefined : sum.flops + one.flops,
  };
}
