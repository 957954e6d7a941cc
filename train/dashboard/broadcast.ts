/**
 * A page's parts to everyone who looks at it, as server-sent events.
 * @module
 */

/** A page's content: parts in their order, HTML by id. */
export interface LiveContent {
  readonly title: string;
  readonly parts: ReadonlyMap<string, string>;
}

/** Sends content to whoever listens. */
export interface Broadcast {
  /** How many listen. */
  readonly listeners: number;
  /** A new listener's events: all that there is, then what changes. */
  subscribe(): ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Takes the whole content; each listener gets what differs from what it has. */
  publish(content: LiveContent): void;
  /** Tells everyone that nothing follows. */
  end(): void;
}

interface Listener {
  readonly controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  /** What it has, or is on the way. */
  has: LiveContent;
}

const NOTHING: LiveContent = { title: "", parts: new Map() };
/** After so long a browser tries again. */
const RETRY_MS = 2000;
const encoder = new TextEncoder();

/**
 * Makes a broadcast. A listener that does not read has one event waiting at most: when it reads again, it gets what
 * is new by then.
 *
 * @param onListener called with each new listener
 */
export function createBroadcast(onListener: () => void): Broadcast {
  const listeners = new Set<Listener>();
  let content = NOTHING;
  let hasEnded = false;
  function advance(listener: Listener): void {
    const { controller, has } = listener;
    if ((controller.desiredSize ?? 0) <= 0) return;
    if (has !== content) {
      listener.has = content;
      controller.enqueue(event("update", difference(content, has)));
    }
    if (!hasEnded) return;
    listeners.delete(listener);
    controller.enqueue(event("end", null));
    controller.close();
  }
  return {
    get listeners() {
      return listeners.size;
    },
    subscribe() {
      let listener: Listener;
      return new ReadableStream({
        start(controller) {
          listener = { controller, has: NOTHING };
          listeners.add(listener);
          controller.enqueue(encoder.encode(`retry: ${RETRY_MS}\n\n`));
          onListener();
        },
        pull: () => advance(listener),
        cancel: () => void listeners.delete(listener),
      });
    },
    publish(next) {
      content = next;
      listeners.forEach(advance);
    },
    end() {
      hasEnded = true;
      listeners.forEach(advance);
    },
  };
}

function difference({ title, parts }: LiveContent, has: LiveContent) {
  const html = Object.fromEntries([...parts].filter(([id, part]) => has.parts.get(id) !== part));
  return { title, order: [...parts.keys()], html };
}

function event(name: string, data: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}
