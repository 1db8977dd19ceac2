import { ConfigService } from "../../gen/pilothouse/config/v1/config_pb";
import { clientOf } from "../calls";

export const configs = clientOf(ConfigService);
