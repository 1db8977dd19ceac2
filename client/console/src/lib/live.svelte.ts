// A collection that the shared watch keeps up to date (shared.ts). Nothing is polled.

import { fromBinary, type DescField, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { Noun } from "../overview/gen/pilothouse/watch/v1/watch_pb";
import { session, sessionEnded } from "./session.svelte";
import { open, type Item, type Key, type News, type Wanted } from "./shared";
import type { Method } from "./stream";

export type LiveState = "connecting" | "live" | "stale" | "refused";

interface Shown {
  noun: Noun;
  /** The field of the noun's own watch that has the resource. */
  field: string;
}

/** The nouns of WatchService by the watch of each. */
const NOUNS: Record<string, Shown> = {
  WatchNamespaces: { noun: Noun.NAMESPACE, field: "namespace" },
  WatchApplications: { noun: Noun.APPLICATION, field: "application" },
  WatchContainers: { noun: Noun.CONTAINER, field: "container" },
  WatchServices: { noun: Noun.SERVICE, field: "service" },
  WatchObjects: { noun: Noun.OBJECT, field: "object" },
  WatchVolumes: { noun: Noun.VOLUME, field: "volume" },
  WatchConfigs: { noun: Noun.CONFIG, field: "config" },
};

/** Messages are read for so long, and then the browser draws: ten thousand are no long task. */
const READ_MS = 12;

export class Live<T> {
  /** The objects, by namespace and name, those that came later after them; a new array after each change. */
  items = $state.raw<T[]>([]);
  state = $state<LiveState>("connecting");
  /** Why it is stale or refused. */
  message = $state("");

  private held = new Map<string, T>();
  /** A state that is being read, in place of what is held. */
  private coming: Map<string, T> | undefined;
  /** The news that are not read yet, the latest of each resource: a tab that nobody sees reads none. */
  private waiting = new Map<string, Item | null>();
  private drawing = 0;
  private readonly end: () => void;

  constructor(
    wanted: Wanted,
    private readonly read: (item: Item) => T,
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
        this.coming = new Map();
        this.waiting = new Map(news.items);
        this.draw();
        break;
      case "changes":
        for (const [key, item] of news.changes) this.waiting.set(key, item);
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

  private draw(): void {
    this.drawing ||= requestAnimationFrame(() => {
      this.drawing = 0;
      const until = performance.now() + READ_MS;
      const into = this.coming ?? this.held;
      for (const [key, item] of this.waiting) {
        if (performance.now() >= until) break;
        this.waiting.delete(key);
        if (item) into.set(key, this.read(item));
        else into.delete(key);
      }
      if (this.waiting.size) {
        this.draw();
        // The first rows are shown while the others are read.
        if (!this.coming || this.held.size) return;
      } else {
        if (this.coming) this.held = new Map([...this.coming].sort((a, b) => compare(placeOf(a[1]), placeOf(b[1]))));
        this.coming = undefined;
      }
      this.items = [...(this.coming ?? this.held).values()];
    });
  }
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function placeOf(item: unknown): string {
  const { namespace = "", name = "" } = item as { namespace?: string; name?: string };
  return `${namespace}/${name}`;
}

/** Watches the collection that a noun's own watch would send for this request; with `fields` only those of each resource. */
export function live<I extends DescMessage, O extends DescMessage, T>(
  method: Method<I, O>,
  request: MessageInitShape<I>,
  object: (change: never) => T | undefined,
  fields?: string[],
): Live<T> {
  const given = Object.entries(request as Record<string, string>).filter(([, value]) => value);
  const user = session.me?.user?.uid ?? "";
  const { noun, field } = NOUNS[method.name] as Shown;
  const type = method.output.field[field]?.message as DescMessage;
  const wanted = { user, noun, key: keyOf(type), ...(fields && { readMask: fields }), ...Object.fromEntries(given) };
  return new Live(wanted, (item) => object({ [field]: fromBinary(type, item) } as never) as T);
}

/** Watches all resources of a noun that has no watch of its own; the named fields identify those without a uid. */
export function liveOf<S extends DescMessage>(noun: Noun, schema: S, fields: string[] = ["uid"]): Live<MessageShape<S>> {
  const numbers = schema.fields.filter((each) => fields.includes(each.name)).map((each) => each.number);
  return new Live({ user: session.me?.user?.uid ?? "", noun, key: { fields: numbers, within: false } }, (item) => fromBinary(schema, item));
}

function keyOf(type: DescMessage): Key {
  const uid = (fields: DescField[]) => fields.filter((each) => each.name === "uid").map((each) => each.number);
  const own = uid(type.fields);
  return own.length ? { fields: own, within: false } : { fields: uid(type.fields[0]?.message?.fields ?? []), within: true };
}
