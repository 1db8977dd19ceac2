// The address of a page: #/containers/demo/web?q=… . The server serves one file for all of them.

export interface Route {
  page: string;
  /** The parts after the page. */
  parts: string[];
  query: URLSearchParams;
}

class Router {
  current = $state.raw<Route>(read());

  constructor() {
    window.addEventListener("hashchange", () => (this.current = read()));
  }
}

export const router = new Router();

export function address(page: string, ...parts: string[]): string {
  return `#/${[page, ...parts].map(encodeURIComponent).join("/")}`;
}

/** Opens a page. The route changes before this returns, so fast typing adds no second entry to the history. */
export function go(target: string): void {
  if (target !== location.hash) history.pushState(null, "", `/${target}`);
  router.current = read();
}

/** Opens a page in place of the present one, also where another path led to it. */
export function replace(target: string): void {
  history.replaceState(null, "", `/${target}`);
  router.current = read();
}

/** Sets parts of the query, without an entry in the history; '' removes one. */
export function setQuery(changes: Record<string, string>): void {
  const query = new URLSearchParams(router.current.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  const { page, parts } = router.current;
  history.replaceState(null, "", address(page, ...parts) + (text ? `?${text}` : ""));
  router.current = read();
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...parts] = path.split("/").map(decoded);
  return { page: page || "overview", parts, query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
