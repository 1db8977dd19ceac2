// Streams of messages, over those of bytes (talk.ts).

import { create, fromBinary, toBinary, type DescMessage, type DescMethod, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { ConnectError } from "@connectrpc/connect";
import { StatusSchema } from "../gen/google/rpc/status_pb";
import { RawTalk, TalkError } from "./talk";

/** A method with streams of these messages. */
export type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

/** One call. Iterate for its answers; it ends with ConnectError unless the status is OK. */
export class Talk<I extends DescMessage, O extends DescMessage> {
  private readonly raw: RawTalk;

  constructor(
    private readonly method: Method<I, O>,
    signal: AbortSignal,
    silenceSeconds = 0,
  ) {
    this.raw = new RawTalk(`${method.parent.typeName}/${method.name}`, signal, silenceSeconds);
  }

  send(request: MessageInitShape<I>): Promise<void> {
    return this.raw.send(toBinary(this.method.input, create(this.method.input, request)));
  }

  /** No request follows. */
  sent(): Promise<void> {
    return this.raw.sent();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<MessageShape<O>> {
    try {
      for await (const each of this.raw) yield fromBinary(this.method.output, each);
    } catch (error) {
      throw error instanceof TalkError ? connectError(error) : error;
    }
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

function connectError(found: TalkError): ConnectError {
  const error = new ConnectError(found.message, found.code);
  if (found.details) {
    const status = fromBinary(StatusSchema, base64Decode(found.details));
    error.details = status.details.map((each) => ({ type: each.typeUrl.slice(each.typeUrl.lastIndexOf("/") + 1), value: each.value }));
  }
  return error;
}
