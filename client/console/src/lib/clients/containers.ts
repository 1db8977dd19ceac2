import { ContainerService } from "../../gen/pilothouse/container/v1/container_pb";
import { clientOf } from "../calls";

export const containers = clientOf(ContainerService);
