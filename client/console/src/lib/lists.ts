// Lists that come in parts.

/** The items of both in their order, each key once: a table with two rows of one key does not render. */
export function joined<T>(first: T[], second: T[], key: (item: T) => unknown): T[] {
  const known = new Set<unknown>();
  return [...first, ...second].filter((each) => !known.has(key(each)) && known.add(key(each)));
}
