import { WatchService } from "../../gen/pilothouse/watch/v1/watch_pb";
import { clientOf } from "../calls";

export const watches = clientOf(WatchService);
