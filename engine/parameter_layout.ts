/**
 * Where each parameter lies: pieces of at most one binding, packed in order into blocks. Arithmetic only, no device.
 * @module
 */
import { type Shape, ShapeError, sizeOf } from "./shape.ts";

/** What a layout follows. */
export interface LayoutOptions<Kind extends string> {
  /** Elements that one binding, and so one block, holds; a multiple of `alignment`. */
  readonly maxElements: number;
  /** Elements at whose multiples pieces start. */
  readonly alignment: number;
  /** Whether weight decay applies to a parameter. */
  readonly decays: (name: string, shape: Shape) => boolean;
  /** Whether a parameter must lie apart from the others, in blocks of its own kind. */
  readonly kind: (name: string, shape: Shape) => Kind;
  /** Parameters that lie one after the other, as one matrix (or one vector). */
  readonly groups: readonly (readonly string[])[];
}

/** Rows of one parameter. */
export interface Part {
  /** The parameter. */
  readonly name: string;
  /** `[rows, ...]` of this part. */
  readonly shape: Shape;
  /** Its first element, in the piece that holds it. */
  readonly offset: number;
}

/** What is bound at once: a parameter, a row shard of a large one, or a group. */
export interface Piece {
  /** `[sum of rows, ...]`. */
  readonly shape: Shape;
  /** Without gaps between them. */
  readonly parts: readonly Part[];
}

/** A piece in its block. */
export interface Placement extends Piece {
  /** Its first element in the block. */
  readonly offset: number;
}

/** What shares a buffer. */
export interface BlockLayout<Kind extends string> {
  /** As {@link LayoutOptions.kind} says of all its parameters. */
  readonly kind: Kind;
  /** In order of their offsets. */
  readonly placements: readonly Placement[];
  /** Of the block, with the room between and after its pieces. */
  readonly elements: number;
  /** Elements at the start that decay. */
  readonly decayElements: number;
}

/**
 * Lays parameters out: those that decay first, else in the order given; a group where its first member is.
 *
 * @param shapes names to shapes
 * @param options limits, and what lies where
 * @returns the blocks
 * @throws {RangeError} when a row, or a group, is larger than a binding
 * @throws {ShapeError} when the members of a group cannot be one matrix
 */
export function layOut<Kind extends string>(
  shapes: ReadonlyMap<string, Shape>,
  options: LayoutOptions<Kind>,
): BlockLayout<Kind>[] {
  const groups = groupsByName(shapes, options);
  const pieces = [...shapes].flatMap(([name, shape]) => {
    const group = groups.get(name);
    if (!group) return cut(name, shape, options.maxElements);
    return group[0] === name ? [join(group, shapes, options.maxElements)] : [];
  });
  const of = <Value>(rule: (name: string, shape: Shape) => Value, { parts: [first] }: Piece): Value =>
    rule(first.name, shapes.get(first.name)!);
  const ordered = [
    ...pieces.filter((piece) => of(options.decays, piece)),
    ...pieces.filter((piece) => !of(options.decays, piece)),
  ];
  return [...new Set(ordered.map((piece) => of(options.kind, piece)))].flatMap((kind) =>
    fill(ordered.filter((piece) => of(options.kind, piece) === kind), options).map((placements) => {
      const decaying = placements.filter((placement) => of(options.decays, placement));
      return {
        kind,
        placements,
        elements: endOf(placements, options.alignment),
        decayElements: endOf(decaying, options.alignment),
      };
    })
  );
}

/** Each grouped name with its group. */
function groupsByName(
  shapes: ReadonlyMap<string, Shape>,
  options: LayoutOptions<string>,
): Map<string, readonly string[]> {
  const groups = new Map<string, readonly string[]>();
  for (const group of options.groups) {
    const key = (name: string) => {
      const shape = shapes.get(name);
      if (!shape || shape.length === 0 || groups.has(name)) {
        throw new ShapeError(
          `Cannot group ${
            group.join(", ")
          }: expected parameters of this model, each in one group, found ${name}`,
        );
      }
      return JSON.stringify([shape.slice(1), options.decays(name, shape), options.kind(name, shape)]);
    };
    const keys = group.map(key);
    const other = keys.findIndex((value) => value !== keys[0]);
    if (other >= 0) {
      throw new ShapeError(
        `Cannot group ${group.join(", ")}: expected rows as ${group[0]} [${
          shapes.get(group[0])!.join(", ")
        }] has them, found ${group[other]} [${shapes.get(group[other])!.join(", ")}]`,
      );
    }
    for (const name of group) groups.set(name, group);
  }
  return groups;
}

function join(group: readonly string[], shapes: ReadonlyMap<string, Shape>, maxElements: number): Piece {
  let [rows, offset] = [0, 0];
  const parts = group.map((name): Part => {
    const part = { name, shape: shapes.get(name)!, offset };
    rows += part.shape[0];
    offset += sizeOf(part.shape);
    return part;
  });
  if (offset > maxElements) {
    throw new RangeError(
      `Cannot place the group ${
        group.join(", ")
      }: expected at most ${maxElements} elements in one binding, found ${offset}`,
    );
  }
  return { shape: [rows, ...parts[0].shape.slice(1)], parts };
}

/** Cuts a parameter into row shards that fit one binding. */
function cut(name: string, shape: Shape, maxElements: number): Piece[] {
  const size = sizeOf(shape);
  if (size <= maxElements) return [{ shape, parts: [{ name, shape, offset: 0 }] }];
  const rowSize = sizeOf(shape.slice(1));
  // Shards start at multiples of 64 rows, which keeps slabs of the language-model head aligned.
  const rows = Math.floor(maxElements / rowSize / 64) * 64;
  if (rows === 0) {
    throw new RangeError(
      `Cannot place ${name}: expected 64 rows of ${rowSize} in one binding, found too large a row`,
    );
  }
  return Array.from({ length: Math.ceil(shape[0] / rows) }, (_, index) => {
    const part = [Math.min(rows, shape[0] - index * rows), ...shape.slice(1)];
    return { shape: part, parts: [{ name, shape: part, offset: 0 }] };
  });
}

/** Packs pieces into blocks in order, each piece aligned. */
function fill(pieces: readonly Piece[], { maxElements, alignment }: LayoutOptions<string>): Placement[][] {
  const blocks: Placement[][] = [];
  let offset = Infinity;
  for (const piece of pieces) {
    const size = Math.ceil(sizeOf(piece.shape) / alignment) * alignment;
    if (offset + size > maxElements) {
      blocks.push([]);
      offset = 0;
    }
    blocks[blocks.length - 1].push({ ...piece, offset });
    offset += size;
  }
  return blocks;
}

/** Where the last piece ends, with the room after it. */
function endOf(placements: readonly Placement[], alignment: number): number {
  const last = placements.at(-1);
  return last ? last.offset + Math.ceil(sizeOf(last.shape) / alignment) * alignment : 0;
}
