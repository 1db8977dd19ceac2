import { NamespaceService } from "../../gen/pilothouse/namespace/v1/namespace_pb";
import { clientOf } from "../calls";

export const namespaces = clientOf(NamespaceService);
