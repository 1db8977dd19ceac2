// The rights of the caller. A button says before it is pressed which permission is missing, and who can give it.
//
// An answer is good for a while: a refused button asks again when somebody looks at it or presses it, and all are asked
// again when a call was denied or the user returns to the page. So a right that was given or taken in between shows
// without a reload, and nothing is polled; each question is a record of the audit log.

import { Code, ConnectError } from "@connectrpc/connect";
import { SvelteMap } from "svelte/reactivity";
import { identity } from "./clients/identity";
import { onDenial } from "./denials";

/** The answer for one permission: '' if it is held, else the reason in words. */
interface Answer {
  refusal: string;
  at: number;
}

interface Subject {
  permission: string;
  namespace: string;
}

const GOOD_MS = 30_000;
/** Between two questions about the same, however often somebody looks at it. */
const LEAST_MS = 2_000;
const MOST_AT_ONCE = 50;

const known = new SvelteMap<string, Answer>();
const asked = new Map<string, Subject>();
/** Those that parts of the page show. */
const subjects = new Map<string, Subject>();
let timer = 0;

/** Why the caller may not, '' if it may or is not known yet. Asked of the server once, with all others of the page. */
export function refusal(permission: string, namespace: string): string {
  const key = `${namespace}/${permission}`;
  const found = known.get(key);
  subjects.set(key, { permission, namespace });
  if (found === undefined || Date.now() - found.at > GOOD_MS) put(key);
  return found?.refusal ?? "";
}

/** Somebody looks at what was refused. */
export function askAgain(permission: string, namespace: string): void {
  const key = `${namespace}/${permission}`;
  subjects.set(key, { permission, namespace });
  if (Date.now() - (known.get(key)?.at ?? 0) > LEAST_MS) put(key);
}

/** Forgets all answers: another user is here, or has other grants. */
export function forget(): void {
  known.clear();
  asked.clear();
}

/** Asks again about all that is shown or was; the former answers are shown until then. */
function expire(leastMs = 0): void {
  const now = Date.now();
  for (const [key, answer] of known) {
    if (now - answer.at < leastMs) continue;
    if (subjects.has(key)) put(key);
    else known.delete(key);
  }
}

onDenial(() => expire());
window.addEventListener("focus", () => expire(LEAST_MS));
window.addEventListener("hashchange", () => subjects.clear());

function put(key: string): void {
  const subject = subjects.get(key);
  if (!subject || asked.has(key)) return;
  asked.set(key, subject);
  if (!timer) timer = window.setTimeout(ask, 20);
}

async function ask(): Promise<void> {
  timer = 0;
  const questions = [...asked].slice(0, MOST_AT_ONCE);
  for (const [key] of questions) asked.delete(key);
  if (asked.size) timer = window.setTimeout(ask, 20);
  const at = Date.now();
  let given = false;
  try {
    const answer = await identity.explainPermissions({ questions: questions.map(([, question]) => question) });
    answer.explanations.forEach((each, place) => {
      const givers = each.givers.map((giver) => giver.username).join(", ");
      const words = each.allowed ? "" : each.summary + (givers ? ` It can be given by ${givers}.` : "");
      const key = questions[place]?.[0];
      if (key && each.allowed && known.get(key)?.refusal) given = true;
      if (key) known.set(key, { refusal: words, at });
    });
    // With one right others were most likely given, too.
    if (given) expire(LEAST_MS);
  } catch (error) {
    // Unknown is not refused: the call itself says so.
    if (ConnectError.from(error).code !== Code.Canceled) for (const [key] of questions) known.set(key, { refusal: "", at });
  }
}
