// Streams over WebSockets, as docs/browser.md describes them: frames of gRPC-Web, metadata first, trailers last. Messages
// are bytes here, so the SharedWorker does without the messages of the nouns.

const TRAILERS = 0x80;
const PREFIX_BYTES = 5;

/** The codes of gRPC that the shared watch distinguishes. */
export const UNKNOWN = 2, DEADLINE_EXCEEDED = 4, OUT_OF_RANGE = 11, UNAVAILABLE = 14, UNAUTHENTICATED = 16;

/** How a call ended that did not succeed; `details` is a google.rpc.Status in base64. */
export class TalkError extends Error {
  constructor(
    readonly code: number,
    message: string,
    readonly details = "",
  ) {
    super(message);
  }
}

/** One call over a WebSocket. Iterate for its answers; it ends with TalkError unless the status is OK. */
export class RawTalk {
  private readonly socket: WebSocket;
  private readonly opened: Promise<void>;
  private readonly arrived: (Uint8Array | TalkError | null)[] = [];
  private wake: () => void = () => {};
  private rest: Uint8Array = new Uint8Array(0);
  private ended = false;

  /** `silenceSeconds`: the connection counts as lost after so long without an answer. */
  constructor(method: string, signal: AbortSignal, silenceSeconds = 0) {
    const address = new URL(`/ws/${method}`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    let heard = performance.now();
    const timer = setInterval(() => {
      if (silenceSeconds && performance.now() - heard > silenceSeconds * 1000) this.end(new TalkError(UNAVAILABLE, "the connection is silent"));
    }, 1000);
    this.opened = new Promise((open) => {
      this.socket.onopen = () => {
        this.socket.send(frame(TRAILERS, new Uint8Array(0)));
        open();
      };
    });
    this.socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      heard = performance.now();
      this.take(new Uint8Array(event.data));
    };
    this.socket.onclose = () => {
      clearInterval(timer);
      this.end(new TalkError(UNAVAILABLE, "the connection to the server is lost"));
    };
    signal.addEventListener("abort", () => this.end(null), { once: true });
    if (signal.aborted) this.end(null);
  }

  async send(request: Uint8Array): Promise<void> {
    await this.opened;
    if (!this.ended) this.socket.send(frame(0, request));
  }

  /** No request follows. */
  async sent(): Promise<void> {
    await this.opened;
    if (!this.ended) this.socket.send(frame(TRAILERS, new Uint8Array(0)));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const next = this.arrived.shift();
        if (next === undefined) await new Promise<void>((wake) => (this.wake = wake));
        else if (next === null) return;
        else if (next instanceof TalkError) throw next;
        else yield next;
      }
    } finally {
      this.end(null);
    }
  }

  private take(data: Uint8Array): void {
    this.rest = this.rest.length ? joined(this.rest, data) : data;
    while (this.rest.length >= PREFIX_BYTES) {
      const view = new DataView(this.rest.buffer, this.rest.byteOffset);
      const end = PREFIX_BYTES + view.getUint32(1);
      if (this.rest.length < end) return;
      const contents = this.rest.subarray(PREFIX_BYTES, end);
      const isEnd = (view.getUint8(0) & TRAILERS) !== 0;
      this.rest = this.rest.subarray(end);
      if (isEnd) this.end(statusOf(contents));
      else this.put(contents);
    }
  }

  private put(item: Uint8Array | TalkError | null): void {
    this.arrived.push(item);
    this.wake();
  }

  private end(how: TalkError | null): void {
    if (this.ended) return;
    this.ended = true;
    this.put(how);
    this.socket.close();
  }
}

function frame(flags: number, contents: Uint8Array): ArrayBuffer {
  const framed = new Uint8Array(PREFIX_BYTES + contents.length);
  new DataView(framed.buffer).setUint32(1, contents.length);
  framed[0] = flags;
  framed.set(contents, PREFIX_BYTES);
  return framed.buffer;
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(first.length + second.length);
  whole.set(first);
  whole.set(second, first.length);
  return whole;
}

function statusOf(trailers: Uint8Array): TalkError | null {
  const pairs = new Headers();
  for (const line of new TextDecoder().decode(trailers).split("\r\n")) {
    const at = line.indexOf(":");
    if (at > 0) pairs.append(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  const code = Number(pairs.get("grpc-status") ?? UNKNOWN);
  return code ? new TalkError(code, decodeURIComponent(pairs.get("grpc-message") ?? ""), pairs.get("grpc-status-details-bin") ?? "") : null;
}
