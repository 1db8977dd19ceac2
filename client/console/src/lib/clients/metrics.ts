import { MetricsService } from "../../gen/pilothouse/metrics/v1/metrics_pb";
import { clientOf } from "../calls";

export const metrics = clientOf(MetricsService);
