// A collection that a watch keeps up to date. Nothing is polled.

import { type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ChangeType } from "../gen/pilothouse/resource/v1/resource_pb";
import { hasCode, wordsOf } from "./errors";
import { sessionEnded } from "./session.svelte";
import { answers, type Method } from "./stream";

const BOOKMARK_SECONDS = 10;
const SILENCE_SECONDS = 30;
const MOST_BACK_OFF_SECONDS = 30;
/** A page that nobody looks at for so long gives its connection back. */
const HIDDEN_SECONDS = 60;

/** Every watch answers in this form, with its object in a field of its own. */
interface Change {
  changeType: ChangeType;
  resumeToken: string;
}

export type LiveState = "connecting" | "live" | "stale" | "refused";

export class Live<T> {
  /** The objects, in no order; a new array after each change. */
  items = $state.raw<T[]>([]);
  state = $state<LiveState>("connecting");
  /** Why it is stale or refused. */
  message = $state("");

  private held = new Map<string, T>();
  private token = "";
  private drawing = 0;
  private stop = new AbortController();

  constructor(
    private readonly open: (token: string, signal: AbortSignal) => AsyncGenerator<Change>,
    private readonly object: (change: never) => T | undefined,
    private readonly key: (item: T) => string,
  ) {
    void this.run();
  }

  close(): void {
    this.stop.abort();
    cancelAnimationFrame(this.drawing);
  }

  private async run(): Promise<void> {
    let failures = 0;
    while (!this.stop.signal.aborted) {
      await seen(this.stop.signal);
      const hidden = whenHidden(this.stop.signal);
      try {
        await this.follow(hidden.signal, () => (failures = 0));
        if (!hidden.signal.aborted) throw new ConnectError("the server has ended the watch", Code.Unavailable);
      } catch (error) {
        if (this.stop.signal.aborted) return;
        if (hasCode(error, Code.Unauthenticated)) return sessionEnded();
        if (hasCode(error, Code.PermissionDenied)) {
          this.items = [];
          this.message = wordsOf(error);
          this.state = "refused";
          return;
        }
        // The server no longer has what came after the token: the state is read again.
        if (!hasCode(error, Code.Unavailable) && !hasCode(error, Code.DeadlineExceeded)) this.token = "";
        this.message = wordsOf(error);
        this.state = this.items.length ? "stale" : "connecting";
        failures += 1;
        await pause(Math.min(MOST_BACK_OFF_SECONDS, 0.5 * 2 ** failures) * (0.5 + Math.random()), this.stop.signal);
      } finally {
        hidden.abort();
      }
    }
  }

  private async follow(signal: AbortSignal, heard: () => void): Promise<void> {
    const resumed = this.token !== "";
    const into = resumed ? this.held : new Map<string, T>();
    if (resumed) this.state = "live";
    for await (const change of this.open(this.token, signal)) {
      if (change.changeType === ChangeType.SYNCED) {
        this.held = into;
        this.state = "live";
        this.draw();
      }
      const item = this.object(change as never);
      if (item !== undefined) {
        if (change.changeType === ChangeType.DELETED) into.delete(this.key(item));
        else into.set(this.key(item), item);
        if (into === this.held) this.draw();
        // The first rows are shown while the others still come.
        else if (into.size === 100 && !this.items.length) this.items = [...into.values()];
      }
      // In the middle of a first state there is nothing to go on from.
      if (into === this.held) this.token = change.resumeToken || this.token;
      heard();
    }
  }

  private draw(): void {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.items = [...this.held.values()];
    });
  }
}

/** Watches a method whose request has `resumeToken` and `bookmarkPeriodSeconds`. */
export function live<I extends DescMessage, O extends DescMessage, T>(
  method: Method<I, O>,
  request: MessageInitShape<I>,
  object: (change: never) => T | undefined,
  key: (item: T) => string,
): Live<T> {
  const open = (resumeToken: string, signal: AbortSignal) =>
    answers(
      method,
      { ...request, resumeToken, bookmarkPeriodSeconds: BOOKMARK_SECONDS } as MessageInitShape<I>,
      signal,
      SILENCE_SECONDS,
    ) as unknown as AsyncGenerator<Change>;
  return new Live(open, object, key);
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal.addEventListener("abort", end);
  });
}

function seen(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (!document.hidden) return done();
    const end = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      done();
    };
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });
}

/** Aborts once nobody has looked at the page for a while. Abort it to take its listeners away. */
function whenHidden(signal: AbortSignal): AbortController {
  const own = new AbortController();
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = window.setTimeout(() => own.abort(), HIDDEN_SECONDS * 1000);
  };
  document.addEventListener("visibilitychange", look, { signal: own.signal });
  signal.addEventListener("abort", () => own.abort(), { signal: own.signal });
  own.signal.addEventListener("abort", () => clearTimeout(timer));
  return own;
}
