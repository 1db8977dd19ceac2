// Streams over WebSockets, as docs/browser.md describes them: frames of gRPC-Web, metadata first, trailers last.

import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { StatusSchema } from "../gen/google/rpc/status_pb";

const TRAILERS = 0x80;
const PREFIX_BYTES = 5;

/** A method with streams of these messages. */
export type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

/** One call over a WebSocket. Iterate for its answers; it ends with ConnectError unless the status is OK. */
export class Talk<I extends DescMessage, O extends DescMessage> {
  private readonly socket: WebSocket;
  private readonly opened: Promise<void>;
  private readonly arrived: (MessageShape<O> | ConnectError | null)[] = [];
  private wake: () => void = () => {};
  private rest: Uint8Array = new Uint8Array(0);
  private ended = false;

  constructor(
    private readonly method: Method<I, O>,
    private readonly signal: AbortSignal,
    silenceSeconds = 0,
  ) {
    const address = new URL(`/ws/${method.parent.typeName}/${method.name}`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    let heard = performance.now();
    const timer = setInterval(() => {
      if (silenceSeconds && performance.now() - heard > silenceSeconds * 1000)
        this.end(new ConnectError("the connection is silent", Code.Unavailable));
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
      this.end(new ConnectError("the connection to the server is lost", Code.Unavailable));
    };
    signal.addEventListener("abort", () => this.end(null), { once: true });
    if (signal.aborted) this.end(null);
  }

  async send(request: MessageInitShape<I>): Promise<void> {
    await this.opened;
    if (!this.ended) this.socket.send(frame(0, toBinary(this.method.input, create(this.method.input, request))));
  }

  /** No request follows. */
  async sent(): Promise<void> {
    await this.opened;
    if (!this.ended) this.socket.send(frame(TRAILERS, new Uint8Array(0)));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<MessageShape<O>> {
    try {
      for (;;) {
        const next = this.arrived.shift();
        if (next === undefined) await new Promise<void>((wake) => (this.wake = wake));
        else if (next === null) return;
        else if (next instanceof ConnectError) throw next;
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
      else this.put(fromBinary(this.method.output, contents));
    }
  }

  private put(item: MessageShape<O> | ConnectError | null): void {
    this.arrived.push(item);
    this.wake();
  }

  private end(how: ConnectError | null): void {
    if (this.ended) return;
    this.ended = true;
    this.put(how);
    this.socket.close();
  }
}

/** The answers to one request. `silenceSeconds`: the connection counts as lost after so long without any. */
export async function* answers<I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
  request: MessageInitShape<I>,
  signal: AbortSignal,
  silenceSeconds = 0,
): AsyncGenerator<MessageShape<O>> {
  const talk = new Talk(method, signal, silenceSeconds);
  void talk.send(request).then(() => talk.sent());
  yield* talk;
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

function statusOf(trailers: Uint8Array): ConnectError | null {
  const pairs = new Headers();
  for (const line of new TextDecoder().decode(trailers).split("\r\n")) {
    const at = line.indexOf(":");
    if (at > 0) pairs.append(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  const code = Number(pairs.get("grpc-status") ?? Code.Unknown);
  if (code === 0) return null;
  const error = new ConnectError(decodeURIComponent(pairs.get("grpc-message") ?? ""), code);
  const details = pairs.get("grpc-status-details-bin");
  if (details) {
    const status = fromBinary(StatusSchema, base64Decode(details));
    error.details = status.details.map((each) => ({
      type: each.typeUrl.slice(each.typeUrl.lastIndexOf("/") + 1),
      value: each.value,
    }));
  }
  return error;
}
