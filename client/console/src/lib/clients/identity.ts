import { IdentityService } from "../../gen/pilothouse/identity/v1/identity_pb";
import { clientOf } from "../calls";

export const identity = clientOf(IdentityService);
