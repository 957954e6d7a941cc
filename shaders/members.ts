/**
 * Members of a kernel family by the values of their constants.
 * @module
 */
import type { RegisteredKernel } from "./registry.ts";

/** A constant of a kernel, which may lie inside another: `tile.rows`, `terms.0.loss`. */
export type ConstantValue = string | number | boolean;

/**
 * Lists the constants of a member by dotted names.
 *
 * @param constants as the registry has them
 * @returns in their order
 */
export function flattenConstants(constants: unknown): Map<string, ConstantValue> {
  return new Map(walk(constants, []));
}

/**
 * Finds the member with these constants: the registered one that has them and no others, or the first that has them, or
 * where none has a number, such a one with it in the place of its own. What ops ask for is registered; other numbers may not fit their kernel.
 *
 * @param registered the family
 * @param wanted by dotted names
 * @returns constants, as the registry has them
 * @throws {RangeError} on a name or word that no member has, saying which there are
 */
export function findMember(
  { constants: members }: RegisteredKernel,
  wanted: ReadonlyMap<string, ConstantValue>,
): unknown {
  let found = members;
  const changes: [string, ConstantValue][] = [];
  for (const [name, value] of wanted) {
    const known = valuesOf(found, name);
    if (known.length === 0) throw new RangeError(describeUnknown(members, found, { name }));
    if (known.includes(value)) {
      found = found.filter((member) => flattenConstants(member).get(name) === value);
    } else if (typeof value === "number" && typeof known[0] === "number") {
      found = found.filter((member) => flattenConstants(member).has(name));
      changes.push([name, value]);
    } else {
      throw new RangeError(`expected ${name} to be ${known.join(" or ")}, found ${value}`);
    }
  }
  // One member's list may begin as another's.
  const exact = found.find((member) => flattenConstants(member).size === wanted.size);
  const start = exact ?? found[0];
  return changes.reduce((member, [name, value]) => withConstant(member, name.split("."), value), start);
}

function walk(value: unknown, path: readonly string[]): [string, ConstantValue][] {
  if (typeof value !== "object" || value === null) return [[path.join("."), value as ConstantValue]];
  return Object.entries(value).flatMap(([key, child]) => walk(child, [...path, key]));
}

function valuesOf(members: readonly unknown[], name: string): ConstantValue[] {
  return [...new Set(members.flatMap((member) => flattenConstants(member).get(name) ?? []))];
}

function describeUnknown(
  all: readonly unknown[],
  left: readonly unknown[],
  { name }: { name: string },
): string {
  const names = [...new Set(left.flatMap((member) => [...flattenConstants(member).keys()]))];
  const isElsewhere = valuesOf(all, name).length > 0;
  const known = names.length === 0 ? "none, as this kernel has one member" : `one of ${names.join(", ")}`;
  return `expected ${known}, found ${name}${
    isElsewhere ? ", which no member with the values before it has" : ""
  }`;
}

function withConstant(value: unknown, [key, ...rest]: readonly string[], last: ConstantValue): unknown {
  if (key === undefined) return last;
  const child = withConstant((value as Record<string, unknown>)[key], rest, last);
  if (!Array.isArray(value)) return { ...(value as object), [key]: child };
  return value.map((item, index) => String(index) === key ? child : item);
}
