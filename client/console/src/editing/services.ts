import { ServiceSchema, ServiceTypeSchema } from "../gen/pilothouse/network/v1/network_pb";
import { services } from "../lib/clients/services";
import { choicesOf, type Editable } from "../lib/editing";

export const editableService: Editable<typeof ServiceSchema> = {
  noun: "Service",
  schema: ServiceSchema,
  createPermission: "service.create",
  updatePermission: "service.update",
  hasNamespace: true,
  entries: [{ label: "Type", path: ["type"], kind: "choice", choices: choicesOf(ServiceTypeSchema) }],
  start: "containers: [web]\nports:\n- {port: 80}\n",
  create: (namespace, service, how) => services.createService({ namespace, service, ...how }),
  update: (before, service, paths, how) => services.updateService({ namespace: before.namespace, name: before.name, service, updateMask: { paths }, etag: before.etag, ...how }),
};
