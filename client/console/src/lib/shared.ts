// A page's end of the watch that all tabs share. Without SharedWorkers the page has a watch of its own.

import type { Hub } from "./hub";
import type { LiveState } from "./live.svelte";

/** The fields that identify a resource; `within`: they are those of its one field. */
export interface Key {
  fields: number[];
  within: boolean;
}

/** A collection: a noun by its number, and a selection. `user`: nobody is shown what another user of the browser saw. */
export interface Wanted {
  user: string;
  noun: number;
  key: Key;
  namespace?: string;
  name?: string;
  labelSelector?: string;
  filter?: string;
  apiVersion?: string;
  kind?: string;
  readMask?: string[];
}

/** The message of a resource. */
export type Item = Uint8Array;

export type News =
  | { kind: "state"; items: [string, Item][] }
  | { kind: "changes"; changes: [string, Item | null][] }
  | { kind: "condition"; state: LiveState; message: string }
  /** The watch is alive, and what no collection shows may have changed. */
  | { kind: "beat" }
  | { kind: "ended" };

export type Sink = (news: News) => void;
export interface ToTab {
  id: number;
  news: News;
}
export type FromTab =
  | { kind: "open"; id: number; wanted: Wanted }
  | { kind: "close"; id: number }
  | { kind: "visible"; visible: boolean }
  | { kind: "lock"; name: string }
  | { kind: "bye" }
  | { kind: "forget" };

interface Opened {
  wanted: Wanted;
  sink: Sink;
  close?: () => void;
}

const opened = new Map<number, Opened>();
let next = 0;
let port: MessagePort | null | undefined;
let own: Promise<Hub> | undefined;

/** Shows a collection to a sink, until the function that is returned is called. */
export function open(wanted: Wanted, sink: Sink): () => void {
  const id = (next += 1);
  const each: Opened = { wanted, sink };
  opened.set(id, each);
  if (connected()) send({ kind: "open", id, wanted });
  else openHere(each);
  return () => {
    opened.delete(id);
    if (port) send({ kind: "close", id });
    else each.close?.();
  };
}

/** Has everything dropped that was shown: the session has ended. */
export function forget(): void {
  if (port) send({ kind: "forget" });
  void own?.then((hub) => hub.forget());
}

function send(message: FromTab): void {
  port?.postMessage(message);
}

function connected(): boolean {
  if (port !== undefined) return port !== null;
  // Without locks nobody knows when a tab is gone.
  if (typeof SharedWorker === "undefined" || !navigator.locks) {
    port = null;
    return false;
  }
  const worker = new SharedWorker(new URL("./watcher.ts", import.meta.url), { type: "module", name: "pilothouse" });
  port = worker.port;
  port.onmessage = ({ data }: MessageEvent<ToTab>) => opened.get(data.id)?.sink(data.news);
  worker.onerror = () => {
    port = null;
    for (const each of opened.values()) openHere(each);
  };
  const name = `pilothouse-${crypto.randomUUID()}`;
  void navigator.locks.request(name, () => {
    send({ kind: "lock", name });
    return new Promise(() => {});
  });
  const look = () => send({ kind: "visible", visible: !document.hidden });
  document.addEventListener("visibilitychange", look);
  look();
  return true;
}

function openHere(each: Opened): void {
  own ??= import("./hub").then(({ Hub }) => {
    const hub = new Hub();
    const look = () => hub.looked(document, !document.hidden);
    document.addEventListener("visibilitychange", look);
    look();
    return hub;
  });
  let closed = false;
  each.close = () => (closed = true);
  void own.then((hub) => {
    if (!closed) each.close = hub.open(each.wanted, each.sink);
  });
}
