// A collection that the shared watch keeps up to date (shared.ts). Nothing is polled.

import { type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { session, sessionEnded } from "./session.svelte";
import { open, type Item, type News, type Wanted } from "./shared";
import type { Method } from "./stream";

export type LiveState = "connecting" | "live" | "stale" | "refused";

/** The nouns of WatchService by the watch of each. */
const NOUNS: Record<string, string> = {
  WatchNamespaces: "NAMESPACE",
  WatchApplications: "APPLICATION",
  WatchContainers: "CONTAINER",
  WatchServices: "SERVICE",
  WatchObjects: "OBJECT",
  WatchVolumes: "VOLUME",
  WatchConfigs: "CONFIG",
  WatchRuns: "RUN",
};

export class Live<T> {
  /** The objects, in no order; a new array after each change. */
  items = $state.raw<T[]>([]);
  state = $state<LiveState>("connecting");
  /** Why it is stale or refused. */
  message = $state("");

  private held = new Map<string, T>();
  private drawing = 0;
  private readonly end: () => void;

  constructor(
    wanted: Wanted,
    private readonly object: (change: never) => T | undefined,
  ) {
    this.end = open(wanted, (news) => this.take(news));
  }

  close(): void {
    this.end();
    cancelAnimationFrame(this.drawing);
  }

  private take(news: News): void {
    switch (news.kind) {
      case "state":
        this.held = new Map();
        for (const [uid, item] of news.items) this.put(uid, item);
        this.draw();
        break;
      case "changes":
        for (const [uid, item] of news.changes) this.put(uid, item);
        this.draw();
        break;
      case "condition":
        this.state = news.state;
        this.message = news.message;
        break;
      case "ended":
        sessionEnded();
    }
  }

  private put(uid: string, item: Item | null): void {
    // As the noun's own watch has it: the resource in a field of its name.
    const found = item && this.object({ [item.case]: item.value } as never);
    if (found) this.held.set(uid, found);
    else this.held.delete(uid);
  }

  private draw(): void {
    this.drawing ||= requestAnimationFrame(() => {
      this.drawing = 0;
      this.items = [...this.held.values()];
    });
  }
}

/** Watches the collection that a noun's own watch would send for this request. */
export function live<I extends DescMessage, O extends DescMessage, T>(
  method: Method<I, O>,
  request: MessageInitShape<I>,
  object: (change: never) => T | undefined,
): Live<T> {
  const given = Object.entries(request as Record<string, string>).filter(([, value]) => value);
  const user = session.me?.user?.uid ?? "";
  return new Live({ user, noun: NOUNS[method.name] ?? method.name, ...Object.fromEntries(given) }, object);
}
