// Lists that come in parts, and which records of the audit log are of changes.

/** Actions that change no resource. */
export const READS: ReadonlySet<string> = new Set(["get", "list", "watch", "explain", "check", "logs", "query"]);
/** Actions within pods, which leave the resource as it is. */
export const IN_PODS: ReadonlySet<string> = new Set(["exec", "port_forward", "copy"]);

/** The items of both in their order, each key once: a table with two rows of one key does not render. */
export function joined<T>(first: T[], second: T[], key: (item: T) => unknown): T[] {
  const known = new Set<unknown>();
  return [...first, ...second].filter((each) => !known.has(key(each)) && known.add(key(each)));
}
