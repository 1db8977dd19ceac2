// The user of the page. The credential is a cookie that scripts cannot read, so the page asks the server for the user.

import { forget } from "./shared";
import type { WhoAmIResponse } from "../gen/pilothouse/identity/v1/identity_pb";

class Session {
  /** Unset until the server has been asked; null without a session. */
  me = $state<WhoAmIResponse | null | undefined>(undefined);
  /** Why the log-in is shown, '' at the first visit. */
  note = $state("");
  /** Why a log-in at an issuer failed. */
  refused = $state("");
}

export const session = new Session();

/** Shows the log-in. Everything that polls or waits looks at `session.me` and stops. */
export function sessionEnded(): void {
  forget();
  if (session.me) session.note = "Your session has ended. Log in again.";
  session.me = null;
}
