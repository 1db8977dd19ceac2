// The rows of a list that the address asks for.

import type { Route } from "./route.svelte";

interface Placed {
  namespace: string;
  name: string;
}

export function narrowed<T extends Placed>(items: T[], route: Route, more: (item: T) => string = () => ""): T[] {
  const namespace = route.query.get("namespace") ?? "";
  const words = (route.query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  return items
    .filter((item) => {
      if (namespace && item.namespace !== namespace) return false;
      if (!words.length) return true;
      const text = `${item.namespace}/${item.name} ${more(item)}`.toLowerCase();
      return words.every((word) => text.includes(word));
    })
    .sort((a, b) => (a.namespace === b.namespace ? (a.name < b.name ? -1 : 1) : a.namespace < b.namespace ? -1 : 1));
}

/** The names of namespaces. One that was made again is there twice for a moment, while a watch goes on where it was. */
export const namesOf = (items: { name: string }[]): string[] => [...new Set(items.map((each) => each.name))].sort();

export const namespacesOf = (items: Placed[]): string[] => [...new Set(items.map((each) => each.namespace))];
