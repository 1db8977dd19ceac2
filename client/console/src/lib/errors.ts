// Errors of calls, as people read them.

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, BadRequestSchema } from "../gen/google/rpc/error_details_pb";

/** The message of an error, with the fields that are wrong. */
export function wordsOf(error: unknown): string {
  if (error instanceof Error && !(error instanceof ConnectError) && error.name === "Error") return error.message;
  const found = ConnectError.from(error);
  if (found.code === Code.Unavailable || (found.code === Code.Unknown && found.rawMessage.includes("fetch")))
    return `Not available: ${found.rawMessage}`;
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

/** Facts about the error, such as which proof is asked for. */
export function factsOf(error: unknown): Record<string, string> {
  return ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.metadata ?? {};
}

export function hasCode(error: unknown, code: Code): boolean {
  return ConnectError.from(error).code === code;
}
