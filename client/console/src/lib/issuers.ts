// Log-in at an issuer: the browser goes there, and comes back to /callback. The answer is bound to this tab by the token
// of the log-in, which stays in the tab's storage; the answer of a log-in that this tab did not begin is refused here, and
// by the server, which compares the state with the token.

import { replace } from "./route.svelte";
import { identity } from "./clients/identity";

export interface Issuer {
  name: string;
  displayName: string;
}

interface Begun {
  state: string;
  loginToken: string;
  issuer: string;
  /** The page that asked for the log-in. */
  back: string;
}

const BEGUN = "pilothouse-log-in";
/** The issuer where somebody last logged in by this browser; no credential. */
const LAST = "pilothouse-issuer";
const SENT = "pilothouse-sent";
const LEAST_SECONDS = 60;
const CALLBACK = "/callback";

/** Those where people log in, none if the server cannot be asked. */
export async function listed(): Promise<Issuer[]> {
  try {
    const answer = await fetch("./issuers.json");
    return answer.ok ? ((await answer.json()) as Issuer[]) : [];
  } catch {
    return [];
  }
}

/** Sends the browser to an issuer. With `maxAgeSeconds` the issuer asks the person again unless it has just done so. */
export async function leave(issuer: string, maxAgeSeconds = 0): Promise<void> {
  const redirectUri = `${location.origin}${CALLBACK}`;
  const answer = await identity.beginOidcLogin({ issuer, redirectUri, maxAgeSeconds });
  if (!/^https?:$/.test(new URL(answer.authorizationUrl).protocol)) throw new Error("The log-in address of the issuer is not an http or https URL.");
  const begun: Begun = { state: answer.state, loginToken: answer.loginToken, issuer: answer.issuer, back: location.hash };
  sessionStorage.setItem(BEGUN, JSON.stringify(begun));
  location.assign(answer.authorizationUrl);
}

/** Whether the browser comes back from an issuer. */
export const isBack = (): boolean => location.pathname === CALLBACK;

/** Completes the log-in that the browser comes back from; its address is that of the page again. */
export async function arrive(): Promise<void> {
  const found = new URLSearchParams(location.search);
  const text = sessionStorage.getItem(BEGUN);
  sessionStorage.removeItem(BEGUN);
  const begun = text ? (JSON.parse(text) as Begun) : undefined;
  replace(begun?.back || "#/overview");
  if (!begun || begun.state !== found.get("state")) throw new Error("This log-in was not begun in this tab. Begin again.");
  const refusal = found.get("error");
  if (refusal) throw new Error(`The issuer did not log you in: ${[refusal, found.get("error_description")].filter(Boolean).join(": ")}`);
  await identity.completeOidcLogin({ loginToken: begun.loginToken, state: begun.state, code: found.get("code") ?? "", iss: found.get("iss") ?? "" });
  localStorage.setItem(LAST, begun.issuer);
}

/** Somebody logged out, or logged in otherwise: nobody is sent to an issuer by itself. */
export const forgetIssuer = (): void => localStorage.removeItem(LAST);

export const lastIssuer = (): string => localStorage.getItem(LAST) ?? "";

/** The issuer to which a browser is sent by itself when its session has ended, at most once a minute; else ''. */
export function renewing(): string {
  const issuer = lastIssuer();
  const sent = Number(sessionStorage.getItem(SENT) ?? 0);
  if (!issuer || Date.now() - sent < LEAST_SECONDS * 1000) return "";
  sessionStorage.setItem(SENT, String(Date.now()));
  return issuer;
}
