import { NetworkService } from "../../gen/pilothouse/network/v1/network_pb";
import { clientOf } from "../calls";

export const services = clientOf(NetworkService);
