import { StorageService } from "../../gen/pilothouse/storage/v1/storage_pb";
import { clientOf } from "../calls";

export const volumes = clientOf(StorageService);
