import { AuditService } from "../../gen/pilothouse/audit/v1/audit_pb";
import { clientOf } from "../calls";

export const audit = clientOf(AuditService);
