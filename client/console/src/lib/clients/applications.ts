import { ApplicationService } from "../../gen/pilothouse/application/v1/application_pb";
import { clientOf } from "../calls";

export const applications = clientOf(ApplicationService);
