import { NamespaceSchema } from "../gen/pilothouse/namespace/v1/namespace_pb";
import { namespaces } from "../lib/clients/namespaces";
import type { Editable } from "../lib/editing";

export const editableNamespace: Editable<typeof NamespaceSchema> = {
  noun: "namespace",
  schema: NamespaceSchema,
  createPermission: "namespace.create",
  updatePermission: "namespace.update",
  hasNamespace: false,
  entries: [
    { label: "Containers", path: ["resource_quota", "containers"], kind: "number", example: "no limit" },
    { label: "CPU", path: ["resource_quota", "cpu"], kind: "text", example: "4" },
    { label: "Memory", path: ["resource_quota", "memory"], kind: "text", example: "8Gi" },
    { label: "Storage", path: ["resource_quota", "storage"], kind: "text", example: "100Gi" },
  ],
  start: "",
  changeable: ["display_name", "description", "resource_quota", "labels", "annotations", "service_types", "external_sources", "allowed_hosts", "network_policies", "legal_hold"],
  create: (_, namespace, how) => namespaces.createNamespace({ namespace, ...how }),
  update: (before, namespace, paths, how) => namespaces.updateNamespace({ name: before.name, namespace, updateMask: { paths }, etag: before.etag, ...how }),
};

/** A new one also has a place. */
export const newNamespace: Editable<typeof NamespaceSchema> = { ...editableNamespace, changeable: undefined };
