// The messages of WatchService.Watch as bytes: what the SharedWorker needs of them. A proto never changes the number of a
// field, so the numbers stand here (watch.proto); the resources stay bytes, and a tab reads those of its nouns.

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Key, Wanted } from "./shared";

export const WATCH = "pilothouse.watch.v1.WatchService/Watch";
export const DELETED = 3, SYNCED = 4, BOOKMARK = 5;

export interface Response {
  changeType: number;
  resource: Uint8Array | undefined;
  resumeToken: string;
  scope: number;
}

export interface AskedScope {
  wanted: Wanted;
  initialState: boolean;
}

export function requestBytes(scopes: AskedScope[], resumeToken: string, bookmarkPeriodSeconds: number): Uint8Array {
  const writer = new BinaryWriter();
  const text = (number: number, value: string | undefined) => value && writer.tag(number, WireType.LengthDelimited).string(value);
  for (const { wanted, initialState } of scopes) {
    writer.tag(1, WireType.LengthDelimited).fork();
    writer.tag(1, WireType.Varint).int32(wanted.noun);
    text(2, wanted.namespace);
    text(3, wanted.name);
    text(4, wanted.labelSelector);
    text(5, wanted.filter);
    if (wanted.readMask) {
      writer.tag(6, WireType.LengthDelimited).fork();
      for (const path of wanted.readMask) text(1, path);
      writer.join();
    }
    text(7, wanted.apiVersion);
    text(8, wanted.kind);
    if (initialState) writer.tag(9, WireType.Varint).bool(true);
    writer.join();
  }
  text(2, resumeToken);
  writer.tag(3, WireType.Varint).int32(bookmarkPeriodSeconds);
  return writer.finish();
}

export function responseOf(bytes: Uint8Array): Response {
  const found: Response = { changeType: 0, resource: undefined, resumeToken: "", scope: 0 };
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === 1) found.changeType = reader.int32();
    // The kind of the resource is the one field of it; it is known from the scope.
    else if (number === 2) found.resource = contentsOf(reader.bytes());
    else if (number === 4) found.resumeToken = reader.string();
    else if (number === 6) found.scope = reader.int32();
    else reader.skip(type);
  }
  return found;
}

/** The value of a message's one field, in memory of its own. */
function contentsOf(bytes: Uint8Array): Uint8Array {
  const reader = new BinaryReader(bytes);
  reader.tag();
  return reader.bytes().slice();
}

/** The key of a resource: its uid, or the fields that name it. */
export function keyOf(resource: Uint8Array, { fields, within }: Key): string {
  const found: string[] = [];
  const reader = new BinaryReader(within ? contentsOf(resource) : resource);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (fields.includes(number)) found[fields.indexOf(number)] = reader.string();
    else reader.skip(type);
  }
  return found.join("\n");
}
