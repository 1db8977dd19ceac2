// One watch for all collections that open pages show: WatchService.Watch with a scope for each, over one WebSocket, with
// one resume token. It runs in the SharedWorker (watcher.ts) for all tabs, or in a page where there is none.

import { DEADLINE_EXCEEDED, OUT_OF_RANGE, RawTalk, TalkError, UNAUTHENTICATED, UNAVAILABLE } from "./talk";
import { BOOKMARK, DELETED, SYNCED, WATCH, keyOf, requestBytes, responseOf, type Response } from "./watching";
import type { Item, News, Sink, Wanted } from "./shared";

const BOOKMARK_SECONDS = 10;
const SILENCE_SECONDS = 30;
/** Each overview that is asked for is a record of the audit log, so beats are rare. */
const BEAT_SECONDS = 30;
const MOST_BACK_OFF_SECONDS = 30;
/** Pages that nobody looks at for so long give the connection back. */
const HIDDEN_SECONDS = 60;
/** A collection that nobody shows is kept so long: the user may come back to its page. */
const UNUSED_SECONDS = 60;
const MOST_SCOPES = 32;
const GATHER_MS = 30;

class Collection {
  readonly sinks = new Set<Sink>();
  /** Whether the stream that gave the token had it, so that the token continues it. */
  synced = false;
  held = new Map<string, Item>();
  coming = new Map<string, Item>();
  changes = new Map<string, Item | null>();
  unusedSince = 0;

  constructor(readonly wanted: Wanted) {}

  tell(news: News): void {
    for (const sink of this.sinks) sink(news);
  }
}

export class Hub {
  private readonly collections = new Map<string, Collection>();
  private readonly visible = new Map<object, boolean>();
  private user = "";
  private token = "";
  private stop = new AbortController();
  private wake: () => void = () => {};
  private restarting = 0;
  private flushing = 0;
  private hiding = 0;
  private paused = false;
  private failures = 0;
  private beaten = 0;

  constructor() {
    setInterval(() => this.dropUnused(), (UNUSED_SECONDS * 1000) / 2);
    void this.run();
  }

  /** Shows a collection to a sink, until the function that is returned is called. */
  open(wanted: Wanted, sink: Sink): () => void {
    if (wanted.user !== this.user) this.forget();
    this.user = wanted.user;
    const key = JSON.stringify(wanted);
    let found = this.collections.get(key);
    if (!found) {
      this.collections.set(key, (found = new Collection(wanted)));
      this.restart();
    }
    const collection = found;
    collection.sinks.add(sink);
    if (collection.synced) {
      sink({ kind: "state", items: [...collection.held] });
      sink({ kind: "condition", state: this.failures ? "stale" : "live", message: "" });
    }
    return () => {
      collection.sinks.delete(sink);
      if (!collection.sinks.size) collection.unusedSince = Date.now();
    };
  }

  /** Learns whether somebody looks at a page; null: it is gone. */
  looked(page: object, visible: boolean | null): void {
    if (visible === null) this.visible.delete(page);
    else this.visible.set(page, visible);
    clearTimeout(this.hiding);
    if ([...this.visible.values()].includes(true)) {
      this.paused = false;
      this.wake();
      return;
    }
    this.hiding = setTimeout(() => {
      this.paused = true;
      this.stop.abort();
    }, HIDDEN_SECONDS * 1000) as unknown as number;
  }

  /** Drops everything: the session has ended, or another user has logged in. */
  forget(): void {
    this.collections.clear();
    this.token = "";
    this.stop.abort();
  }

  private async run(): Promise<void> {
    for (;;) {
      while (this.paused || !this.collections.size) await new Promise<void>((wake) => (this.wake = wake));
      const stop = (this.stop = new AbortController());
      const collections = [...this.collections.values()].slice(0, MOST_SCOPES);
      try {
        await this.follow(collections, stop.signal);
        if (!stop.signal.aborted) throw new TalkError(UNAVAILABLE, "the server has ended the watch");
      } catch (error) {
        if (!stop.signal.aborted) await this.failed(error instanceof TalkError ? error : new TalkError(UNAVAILABLE, String(error)), collections);
      } finally {
        stop.abort();
      }
    }
  }

  private async follow(collections: Collection[], signal: AbortSignal): Promise<void> {
    if (!this.token) for (const each of collections) each.synced = false;
    for (const each of collections) if (!each.synced) each.coming = new Map();
    const scopes = collections.map((each) => ({ wanted: each.wanted, initialState: this.token !== "" && !each.synced }));
    const talk = new RawTalk(WATCH, signal, SILENCE_SECONDS);
    void talk.send(requestBytes(scopes, this.token, BOOKMARK_SECONDS)).then(() => talk.sent());
    for await (const bytes of talk) {
      // A response that had come before another stream was begun, or everything was dropped.
      if (signal.aborted) return;
      const answer = responseOf(bytes);
      if (this.failures) for (const each of collections) if (each.synced) each.tell({ kind: "condition", state: "live", message: "" });
      this.failures = 0;
      this.take(collections, answer);
    }
  }

  private take(collections: Collection[], answer: Response): void {
    if (answer.changeType === SYNCED) {
      for (const each of collections.filter((one) => !one.synced)) {
        each.held = each.coming;
        each.changes = new Map();
        each.synced = true;
        each.tell({ kind: "state", items: [...each.held] });
        each.tell({ kind: "condition", state: "live", message: "" });
      }
    } else if (answer.changeType !== BOOKMARK && answer.resource) {
      const collection = collections[answer.scope];
      if (collection) this.change(collection, answer.resource, answer.changeType === DELETED);
    }
    if (answer.resumeToken) this.token = answer.resumeToken;
    if (Date.now() - this.beaten >= BEAT_SECONDS * 1000) {
      this.beaten = Date.now();
      for (const each of collections) if (each.synced) each.tell({ kind: "beat" });
    }
  }

  private change(collection: Collection, item: Item, deleted: boolean): void {
    const into = collection.synced ? collection.held : collection.coming;
    const uid = keyOf(item, collection.wanted.key);
    if (deleted) into.delete(uid);
    else into.set(uid, item);
    // The first rows are shown while the others still come.
    if (!collection.synced) {
      if (into.size === 100 && !collection.held.size) collection.tell({ kind: "state", items: [...into] });
      return;
    }
    collection.changes.set(uid, deleted ? null : item);
    this.flushing ||= setTimeout(() => this.flush(), GATHER_MS) as unknown as number;
  }

  private flush(): void {
    this.flushing = 0;
    for (const each of this.collections.values()) {
      if (!each.changes.size) continue;
      each.tell({ kind: "changes", changes: [...each.changes] });
      each.changes = new Map();
    }
  }

  private async failed(error: TalkError, collections: Collection[]): Promise<void> {
    if (error.code === UNAUTHENTICATED) {
      for (const each of this.collections.values()) each.tell({ kind: "ended" });
      return this.forget();
    }
    const lost = collections[scopeOf(error)];
    if (lost && error.code === OUT_OF_RANGE) {
      // The caller sees other namespaces now: this collection is read again, and the others go on.
      lost.synced = false;
      return;
    }
    if (lost) {
      lost.tell({ kind: "state", items: [] });
      lost.tell({ kind: "condition", state: "refused", message: error.message.replace(/^scopes\[\d+\][^:]*: /, "") });
      for (const [key, each] of this.collections) if (each === lost) this.collections.delete(key);
      return;
    }
    // The server no longer has what came after the token: the state is read again.
    if (error.code !== UNAVAILABLE && error.code !== DEADLINE_EXCEEDED) this.token = "";
    this.failures += 1;
    for (const each of this.collections.values())
      each.tell({ kind: "condition", state: each.held.size ? "stale" : "connecting", message: error.message });
    const seconds = Math.min(MOST_BACK_OFF_SECONDS, 0.5 * 2 ** this.failures) * (0.5 + Math.random());
    await new Promise((done) => setTimeout(done, seconds * 1000));
  }

  /** Opens another stream, with the scopes of now, soon: a page opens several collections together. */
  private restart(): void {
    clearTimeout(this.restarting);
    this.restarting = setTimeout(() => {
      if (this.collections.size > MOST_SCOPES) this.dropUnused(0);
      this.stop.abort();
      this.wake();
    }, GATHER_MS) as unknown as number;
  }

  private dropUnused(seconds = UNUSED_SECONDS): void {
    let dropped = false;
    for (const [key, each] of this.collections) {
      if (each.sinks.size || Date.now() - each.unusedSince < seconds * 1000) continue;
      dropped = this.collections.delete(key);
    }
    if (dropped) this.stop.abort();
  }
}

/** The scope that an error names; -1 if it names none. */
function scopeOf(error: TalkError): number {
  return Number(/^scopes\[(\d+)\]/.exec(error.message)?.[1] ?? -1);
}
