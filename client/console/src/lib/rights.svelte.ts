// The rights of the caller. A button says before it is pressed which permission is missing, and who can give it.

import { Code, ConnectError } from "@connectrpc/connect";
import { SvelteMap } from "svelte/reactivity";
import { identity } from "./clients/identity";

/** The answer for one permission: '' if it is held, else the reason in words. */
type Refusal = string;

const known = new SvelteMap<string, Refusal>();
const asked = new Map<string, { permission: string; namespace: string }>();
let timer = 0;

/** Why the caller may not, '' if it may or is not known yet. Asked of the server once, with all others of the page. */
export function refusal(permission: string, namespace: string): Refusal {
  const key = `${namespace}/${permission}`;
  const found = known.get(key);
  if (found === undefined && !asked.has(key)) {
    asked.set(key, { permission, namespace });
    if (!timer) timer = window.setTimeout(ask, 20);
  }
  return found ?? "";
}

/** Forgets all answers: grants have changed, or another user is here. */
export function forget(): void {
  known.clear();
  asked.clear();
}

async function ask(): Promise<void> {
  timer = 0;
  const questions = [...asked].slice(0, 50);
  for (const [key] of questions) asked.delete(key);
  if (asked.size) timer = window.setTimeout(ask, 20);
  try {
    const answer = await identity.explainPermissions({ questions: questions.map(([, question]) => question) });
    answer.explanations.forEach((each, at) => {
      const givers = each.givers.map((giver) => giver.username).join(", ");
      const words = each.allowed ? "" : each.summary + (givers ? ` It can be given by ${givers}.` : "");
      const key = questions[at]?.[0];
      if (key) known.set(key, words);
    });
  } catch (error) {
    // Unknown is not refused: the call itself says so.
    if (ConnectError.from(error).code !== Code.Canceled) for (const [key] of questions) known.set(key, "");
  }
}
