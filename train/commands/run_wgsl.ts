/**
 * `wgsl`: a kernel's source, or what kernels there are.
 * @module
 */
import { kernelWgsl } from "../../shaders/kernel.ts";
import { type ConstantValue, findMember, flattenConstants } from "../../shaders/members.ts";
import { PURPOSES } from "../../shaders/purposes.ts";
import { KERNELS, type RegisteredKernel } from "../../shaders/registry.ts";
import { type CommandConsole, openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ConfigError, showFound } from "../errors.ts";
import { nearestName } from "../suggest.ts";
import { formatTable } from "../table.ts";
import { wgslFlagsSchema } from "./wgsl.ts";

/**
 * @param invocation of `wgsl`
 * @returns the exit code
 * @throws {ConfigError} on a kernel or constant that there is not
 */
export function runWgsl(invocation: Invocation): Promise<number> {
  const { list, set } = parseFlags(wgslFlagsSchema, invocation);
  const [name, ...more] = invocation.words;
  if (more.length > 0) {
    throw new ConfigError(`Cannot print ${showFound(more[0])}: expected one kernel, found another before it`);
  }
  if (list && set !== undefined) {
    throw new ConfigError("Cannot use --set: expected a kernel to print, found --list beside it");
  }
  const { result } = openConsole(invocation);
  if (name === undefined) {
    if (!list) {
      throw new ConfigError("Cannot print a kernel: expected its name, found none (--list names them)");
    }
    listKernels(result);
  } else if (list) listMembers(kernelNamed(name), result);
  else printKernel(kernelNamed(name), parseConstants(set), result);
  return Promise.resolve(0);
}

type Result = CommandConsole["result"];

function kernelNamed(name: string): RegisteredKernel {
  const kernel = KERNELS.get(name);
  if (kernel) return kernel;
  const nearest = nearestName(name, [...KERNELS.keys()]);
  throw new ConfigError(
    `Cannot print ${showFound(name)}: expected a kernel, found none of that name (${
      nearest === undefined ? "--list names them" : `did you mean ${nearest}?`
    })`,
  );
}

function listKernels(result: Result): void {
  const names = [...KERNELS.keys()].sort();
  const rows = names.map((name) => ({
    name,
    purpose: PURPOSES[name],
    members: KERNELS.get(name)!.constants.length,
  }));
  const cells = rows.map(({ name, members, purpose }) => [name, members, purpose]);
  result(rows, formatTable(["kernel", "members", "what for"], cells).trimEnd());
}

function listMembers({ constants }: RegisteredKernel, result: Result): void {
  const lines = constants.map((member) =>
    [...flattenConstants(member)].map(([name, value]) => `${name}=${value}`).join(",")
  );
  result(constants, lines.map((line) => line === "" ? "(no constants)" : line).join("\n"));
}

function printKernel(
  registered: RegisteredKernel,
  wanted: ReadonlyMap<string, ConstantValue>,
  result: Result,
): void {
  const { kernel } = registered;
  try {
    const constants = findMember(registered, wanted);
    const { bindings, params, workgroupSize } = kernel.build(constants);
    const wgsl = kernelWgsl(kernel, constants);
    const { name } = kernel;
    result(
      { name, purpose: PURPOSES[name], constants, bindings, params, workgroupSize, wgsl },
      wgsl.trimEnd(),
    );
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new ConfigError(`Cannot use --set: ${cause.message}`, { cause });
  }
}

function parseConstants(set: string | undefined): Map<string, ConstantValue> {
  const wanted = new Map<string, ConstantValue>();
  for (const part of set?.split(",") ?? []) {
    const [name, value, ...more] = part.split("=").map((text) => text.trim());
    if (!name || !value || more.length > 0) {
      throw new ConfigError(
        `Cannot use --set: expected name=value, several joined by commas, found ${showFound(part)}`,
      );
    }
    if (wanted.has(name)) throw new ConfigError(`Cannot use --set: expected ${name} once, found it twice`);
    wanted.set(name, constantOf(value));
  }
  return wanted;
}

function constantOf(text: string): ConstantValue {
  if (text === "true" || text === "false") return text === "true";
  return /^-?[0-9]+$/.test(text) ? Number(text) : text;
}
