// The overview of the server, asked for again when something changes. The watch that says so has only what may be wrong:
// applications, namespaces and the containers that do not run. Of other changes it says nothing, so the overview is also
// asked for with each beat of the watch.

import { Code, ConnectError } from "@connectrpc/connect";
import { Noun, type GetOverviewResponse } from "../overview/gen/pilothouse/watch/v1/watch_pb";
import { watches } from "./clients/watches";
import { wordsOf } from "./errors";
import type { LiveState } from "./live.svelte";
import { session, sessionEnded } from "./session.svelte";
import { open, type News } from "./shared";

/** The server keeps an overview for a second. One that is asked for after this pause has what changed before. */
const PAUSE_MS = 2_000;
// Nothing of these resources is shown, so they need no keys.
const SCOPES: { noun: Noun; filter?: string }[] = [
  { noun: Noun.NAMESPACE },
  { noun: Noun.APPLICATION },
  { noun: Noun.CONTAINER, filter: "status = PENDING OR status = FAILED OR status = CRASH_LOOP_BACK_OFF" },
];

export class LiveOverview {
  answer = $state.raw<GetOverviewResponse>();
  state = $state<LiveState>("connecting");
  message = $state("");

  private readonly stop = new AbortController();
  /** The number of questions still to be asked: one immediately after a change, and one after a pause. */
  private due = 0;
  private asking = false;

  constructor(private readonly request: { mostWrong: number }) {
    const user = session.me?.user?.uid ?? "";
    const ends = SCOPES.map((each) => open({ ...each, user, key: { fields: [], within: false }, readMask: ["status"] }, (news) => this.hear(news)));
    const look = () => this.changed(1);
    document.addEventListener("visibilitychange", look);
    this.stop.signal.addEventListener("abort", () => {
      for (const end of ends) end();
      document.removeEventListener("visibilitychange", look);
    });
    this.changed(1);
  }

  close(): void {
    this.stop.abort();
  }

  private hear(news: News): void {
    if (news.kind === "ended") sessionEnded();
    else if (news.kind === "beat") this.changed(1);
    else if (news.kind !== "condition" || news.state === "live") this.changed(2);
    else if (news.state === "stale") [this.state, this.message] = ["stale", news.message];
    // A user who may not watch one of the nouns has the overview, too: the beats come by the others.
  }

  private changed(times: number): void {
    this.due = Math.max(this.due, times);
    if (!this.asking) void this.ask();
  }

  private async ask(): Promise<void> {
    this.asking = true;
    while (this.due && !document.hidden && !this.stop.signal.aborted) {
      this.due -= 1;
      try {
        this.answer = await watches.getOverview(this.request, { signal: this.stop.signal });
        [this.state, this.message] = ["live", ""];
      } catch (error) {
        const waits = [Code.Unavailable, Code.DeadlineExceeded, Code.ResourceExhausted].includes(ConnectError.from(error).code);
        [this.state, this.message] = [waits ? "stale" : "refused", wordsOf(error)];
      }
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
    this.asking = false;
  }
}
