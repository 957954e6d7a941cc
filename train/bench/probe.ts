/**
 * What an adapter really grants, as opposed to what it lists.
 * @module
 */
import { type Cell, formatMarkdownTable, formatTable } from "../table.ts";

/** One feature, asked for by itself. */
export interface ProbedFeature {
  readonly name: string;
  readonly isListed: boolean;
  readonly isGranted: boolean;
}

/** Everything that was found. */
export interface ProbeReport {
  readonly adapter: string;
  readonly vendor: string;
  readonly architecture: string;
  /** Invocations of a subgroup, least and most. */
  readonly subgroupSizes: readonly [number, number];
  /** As the adapter states them. */
  readonly limits: Readonly<Record<string, number>>;
  readonly features: readonly ProbedFeature[];
}

/** Names that the platform knows without listing them, and that kernels could use. */
const UNLISTED = [
  "subgroups",
  "shader-f16",
  "timestamp-query",
  "wgpu-cooperative-matrix",
  "wgpu-shader-f64",
  "wgpu-shader-int64",
  "wgpu-shader-float32-atomic",
  "wgpu-subgroup-barrier",
  "wgpu-mappable-primary-buffers",
  "wgpu-timestamp-query-inside-passes",
  "wgpu-pipeline-cache",
];

/**
 * Asks for each feature by itself, listed or not.
 *
 * @param adapter of the machine
 */
export async function probeAdapter(adapter: GPUAdapter): Promise<ProbeReport> {
  const { info, limits } = adapter;
  const listed = new Set([...adapter.features].map(String));
  const features: ProbedFeature[] = [];
  for (const name of new Set([...UNLISTED, ...[...listed].toSorted()])) {
    const isGranted = await isFeatureGranted(adapter, name);
    features.push({ name, isListed: listed.has(name), isGranted });
  }
  const names = Object.keys(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(limits)));
  const values = names.map((name) => [name, (limits as unknown as Record<string, unknown>)[name]] as const);
  return {
    adapter: info.description,
    vendor: info.vendor,
    architecture: info.architecture,
    subgroupSizes: [info.subgroupMinSize, info.subgroupMaxSize],
    limits: Object.fromEntries(
      values.filter((entry): entry is [string, number] => typeof entry[1] === "number"),
    ),
    features,
  };
}

async function isFeatureGranted(adapter: GPUAdapter, name: string): Promise<boolean> {
  try {
    const device = await adapter.requestDevice({
      label: `probe ${name}`,
      requiredFeatures: [name as GPUFeatureName],
    });
    const isGranted = device.features.has(name as GPUFeatureName);
    device.destroy();
    return isGranted;
  } catch {
    return false; // a TypeError for a name it does not know, an OperationError for one it does not grant
  }
}

/**
 * @param report what `probeAdapter` returned
 * @param options.markdown tables that can be pasted into a document
 */
export function formatProbe(report: ProbeReport, options: { markdown?: boolean } = {}): string {
  const table = options.markdown ? formatMarkdownTable : formatTable;
  const { adapter, vendor, architecture, subgroupSizes: [least, most], limits, features } = report;
  const yes = (value: boolean): Cell => value ? "yes" : "no";
  return [
    `Adapter: ${adapter} (vendor ${vendor || "unnamed"}, architecture ${architecture || "unnamed"}), ` +
    `subgroups of ${least === most ? least : `${least} to ${most}`}\n`,
    table(
      ["feature", "listed", "granted"],
      features.map(({ name, isListed, isGranted }) => [name, yes(isListed), yes(isGranted)]),
    ),
    table(["limit", "value"], Object.entries(limits)),
  ].join("\n");
}
