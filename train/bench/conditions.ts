/**
 * What a measurement was taken on.
 * @module
 */
import { arch, availableParallelism, cpus, loadavg, platform } from "node:os";
import type { Gpu } from "../../engine/gpu.ts";
import project from "../../deno.json" with { type: "json" };

/** The machine, the versions and how busy the machine was. */
export interface Conditions {
  readonly adapter: string;
  /** True for a software adapter. */
  readonly isCpu: boolean;
  readonly features: readonly string[];
  readonly keel: string;
  readonly deno: string;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  /** Mean runnable processes over the last minute, when the measurement began. */
  readonly load: number;
  /** ISO 8601. */
  readonly date: string;
}

/** @param gpu the device that is measured */
export function readConditions(gpu: Gpu): Conditions {
  const { name, isCpu, features } = gpu.adapter;
  return {
    adapter: name,
    isCpu,
    features,
    keel: project.version,
    deno: Deno.version.deno,
    system: `${platform()} ${arch()}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    load: loadavg()[0],
    date: new Date().toISOString(),
  };
}
