// Clients over gRPC-Web. The browser sends the cookie of the session; the page holds no token. Each service has a
// module of its own in clients/, so that a page loads only the messages that it needs.

import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import type { DescService } from "@bufbuild/protobuf";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { denied } from "./denials";
import { sessionEnded } from "./session.svelte";

const LOG_INS = new Set(["Login", "CompleteLogin", "BeginOidcLogin", "CompleteOidcLogin"]);

const ends: Interceptor = (next) => async (request) => {
  try {
    return await next(request);
  } catch (error) {
    const code = ConnectError.from(error).code;
    if (code === Code.PermissionDenied) denied();
    if (code === Code.Unauthenticated && !LOG_INS.has(request.method.name)) sessionEnded();
    throw error;
  }
};

const transport = createGrpcWebTransport({
  baseUrl: location.origin,
  useBinaryFormat: true,
  interceptors: [ends],
  defaultTimeoutMs: 30_000,
});


export const clientOf = <T extends DescService>(service: T): Client<T> => createClient(service, transport);

/** An id under which a call happens once, however often it is repeated. */
export const requestId = (): string => crypto.randomUUID();
