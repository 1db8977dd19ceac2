import { ObjectService } from "../../gen/pilothouse/object/v1/object_pb";
import { clientOf } from "../calls";

export const objects = clientOf(ObjectService);
