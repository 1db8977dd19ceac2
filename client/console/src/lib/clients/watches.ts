import { WatchService } from "../../overview/gen/pilothouse/watch/v1/watch_pb";
import { clientOf } from "../calls";

export const watches = clientOf(WatchService);
