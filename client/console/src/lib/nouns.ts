// The nouns that the overview and the search show, and the page of each.

import { Noun } from "../overview/gen/pilothouse/watch/v1/watch_pb";
import { address } from "./route.svelte";
import { wordsOfName } from "./words";

interface Shown {
  page: string;
  title: string;
  /** Of one of them. */
  word: string;
}

export const NOUNS: ReadonlyMap<Noun, Shown> = new Map([
  [Noun.NAMESPACE, { page: "namespaces", title: "Namespaces", word: "Namespace" }],
  [Noun.APPLICATION, { page: "applications", title: "Applications", word: "Application" }],
  [Noun.CONTAINER, { page: "containers", title: "Containers", word: "Container" }],
  [Noun.SERVICE, { page: "services", title: "Services", word: "Service" }],
  [Noun.OBJECT, { page: "objects", title: "Objects", word: "Object" }],
  [Noun.VOLUME, { page: "volumes", title: "Volumes", word: "Volume" }],
  [Noun.CONFIG, { page: "configs", title: "Configs", word: "Config" }],
]);

interface Named {
  noun: Noun;
  namespace: string;
  name: string;
}

/** The address of a list, narrowed. */
export function listOf(noun: Noun, query: Record<string, string>): string {
  const given = Object.entries(query).filter(([, value]) => value);
  return `${address(NOUNS.get(noun)?.page ?? "overview")}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** The address of the list of those with a status, in the form of filters. */
export function listByStatus(noun: Noun, status: string): string {
  return listOf(noun, noun === Noun.CONTAINER ? { status } : { q: wordsOfName(status).toLowerCase() });
}

/** The address of one resource: its own page, or the list that shows it alone. */
export function pageOf({ noun, namespace, name }: Named): string {
  if (noun === Noun.CONTAINER || noun === Noun.APPLICATION) return address(NOUNS.get(noun)?.page ?? "", namespace, name);
  return listOf(noun, { namespace, q: name });
}
