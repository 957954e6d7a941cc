/**
 * All kernels through the compiler of whatever runs this: a browser's is stricter than Deno's.
 *
 * @module
 */
import { openGpu } from "../../engine/mod.ts";
import { type Kernel, kernelWgsl } from "../../shaders/kernel.ts";
import { KERNELS } from "../../shaders/registry.ts";

/** What the compiler said. */
export interface Compilation {
  /** The driver's name of the device. */
  readonly adapter: string;
  /** Sources that were compiled, with or without complaint. */
  readonly sources: number;
  /** Complaints, warnings too: kernel and constants, line and column, message, and the line itself. */
  readonly complaints: readonly string[];
  /** Kernels that became pipelines. */
  readonly pipelines: readonly string[];
  /** Members that this adapter's limits rule out, with the limit. */
  readonly beyondLimits: readonly string[];
}

/** One source. */
interface Member {
  readonly kernel: Kernel<unknown>;
  readonly values: unknown;
  readonly label: string;
  readonly code: string;
}

/**
 * Characters up to which a kernel's shortest source becomes a pipeline here. That is the driver's work: in software it
 * takes longer ones seconds each, and they are made in a training run.
 */
const LONGEST_PIPELINE = 3000;

/** Compiles every member of every kernel, checks it against the limits, and makes pipelines of the short ones. */
export async function compileKernels(): Promise<Compilation> {
  using gpu = await openGpu();
  const { device, adapter } = gpu;
  const kernels = [...KERNELS].map(([name, { kernel, constants }]) =>
    constants.map((values): Member => ({
      ...{ kernel, values, label: `${name} ${JSON.stringify(values)}` },
      code: kernelWgsl(kernel, values, adapter.wgslExtensions),
    }))
  );
  const members = kernels.flat();
  // All at once: the compiler has threads of its own.
  const complaints = (await Promise.all(members.map((member) => complaintsOf(device, member)))).flat();
  const shortest = complaints.length > 0 ? [] : kernels
    .map((of) => of.reduce((a, b) => b.code.length < a.code.length ? b : a))
    .filter(({ code }) => code.length <= LONGEST_PIPELINE);
  for (const { kernel, values } of shortest) gpu.pipelines.get(kernel, values);
  // Errors of pipelines come as events.
  await device.queue.onSubmittedWorkDone();
  gpu.check();
  return {
    adapter: adapter.name,
    sources: members.length,
    complaints,
    pipelines: shortest.map(({ kernel }) => kernel.name),
    beyondLimits: members.flatMap((member) => limitsBeyond(device.limits, member)),
  };
}

async function complaintsOf(device: GPUDevice, { label, code }: Member): Promise<string[]> {
  // Without a scope an error would be the device's fault too, which is reported without the line.
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const [{ messages }] = await Promise.all([module.getCompilationInfo(), device.popErrorScope()]);
  const lines = code.split("\n");
  return messages.map(({ type, lineNum, linePos, message }) =>
    `${label}: ${type} at ${lineNum}:${linePos}: ${message}: ${lines[lineNum - 1]?.trim()}`
  );
}

function limitsBeyond(limits: GPUSupportedLimits, { kernel, values, label }: Member): string[] {
  const { bindings, workgroupSize: [x, y], workgroupBytes = 0 } = kernel.build(values);
  const buffers = Object.values(bindings).filter(({ access }) => access !== "texels").length;
  const needs = {
    maxStorageBuffersPerShaderStage: buffers,
    maxComputeInvocationsPerWorkgroup: x * y,
    maxComputeWorkgroupSizeX: x,
    maxComputeWorkgroupSizeY: y,
    maxComputeWorkgroupStorageSize: workgroupBytes,
  } as const;
  return Object.entries(needs).flatMap(([name, needed]) => {
    const granted = limits[name as keyof typeof needs];
    return needed > granted ? [`${label}: ${name}: expected ${needed}, found ${granted}`] : [];
  });
}
