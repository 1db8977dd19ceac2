// Errors of calls, as people read them.

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, BadRequestSchema } from "../gen/google/rpc/error_details_pb";

/** The message of an error, with the fields that are wrong. */
export function wordsOf(error: unknown): string {
  const found = ConnectError.from(error);
  if (found.code === Code.Unavailable || (found.code === Code.Unknown && found.rawMessage.includes("fetch")))
    return `The server does not answer: ${found.rawMessage}`;
  const fields = found
    .findDetails(BadRequestSchema)
    .flatMap((detail) => detail.fieldViolations.map((each) => `${each.field}: ${each.description}`))
    .filter((line) => !found.rawMessage.includes(line));
  return [found.rawMessage, ...fields].join("; ");
}

/** The machine-readable reason of an error, '' without one. */
export function reasonOf(error: unknown): string {
  return ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason ?? "";
}

export function hasCode(error: unknown, code: Code): boolean {
  return ConnectError.from(error).code === code;
}
