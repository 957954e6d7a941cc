/**
 * Prompts cut into what is taken in together.
 * @module
 */

/** Tokens of one sequence that are taken in together. */
export interface Segment {
  /** Its place in the cache. */
  readonly slot: number;
  /** Of the first in its sequence. */
  readonly position: number;
  /** Its tokens. */
  readonly ids: readonly number[];
  /** Which result its last token gives; none where more of the sequence is to come. */
  readonly row?: number;
}

/** How many tokens two sequences begin with alike. */
export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  for (let index = 0; index < end; index++) if (a[index] !== b[index]) return index;
  return end;
}

/**
 * The tokens of a sequence from `first` on, in segments of at most `limit`; the last gives result `row`.
 *
 * @param sequence its slot and all of its tokens
 * @param options where to start, how long a segment is, which result it gives
 */
export function cutSegments(
  { slot, ids }: { slot: number; ids: readonly number[] },
  { row, first, limit }: { row: number; first: number; limit: number },
): Segment[] {
  const segments: Segment[] = [];
  for (let position = first; position < ids.length; position += limit) {
    const end = Math.min(ids.length, position + limit);
    segments.push({
      ...{ slot, position, ids: ids.slice(position, end) },
      ...(end === ids.length ? { row } : {}),
    });
  }
  return segments;
}

/** Segments in order, together as far as they fit; those of one sequence follow each other, never in one pack. */
export function packSegments(segments: readonly Segment[], limit: number): Segment[][] {
  const packs: Segment[][] = [];
  let tokens = Infinity;
  for (const segment of segments) {
    const pack = packs.at(-1);
    // Whole prompts go through the faster kernel: what continues a sequence is packed with its like only.
    const isAlike = pack && (pack[0].position === 0) === (segment.position === 0) &&
      pack.at(-1)!.slot !== segment.slot;
    if (isAlike && tokens + segment.ids.length <= limit) {
      pack.push(segment);
      tokens += segment.ids.length;
    } else {
      packs.push([segment]);
      tokens = segment.ids.length;
    }
  }
  return packs;
}
