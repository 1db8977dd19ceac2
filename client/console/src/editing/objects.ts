import { ObjectSchema } from "../gen/pilothouse/object/v1/object_pb";
import { objects } from "../lib/clients/objects";
import type { Editable } from "../lib/editing";

export const editableObject: Editable<typeof ObjectSchema> = {
  noun: "object",
  schema: ObjectSchema,
  createPermission: "object.create",
  updatePermission: "object.update",
  hasNamespace: true,
  entries: [
    { label: "API version", path: ["api_version"], kind: "text", example: "networking.k8s.io/v1" },
    { label: "Kind", path: ["kind"], kind: "text", example: "Ingress" },
  ],
  start: 'api_version: networking.k8s.io/v1\nkind: NetworkPolicy\n# The object as JSON, as in a manifest.\ndocument: |\n  {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}\n',
  create: (namespace, object, how) => objects.createObject({ namespace, object, ...how }),
  update: (before, object, paths, how) =>
    objects.updateObject({ namespace: before.namespace, apiVersion: before.apiVersion, kind: before.kind, name: before.name, object, updateMask: { paths }, etag: before.etag, ...how }),
};

export const changeableObject: Editable<typeof ObjectSchema> = {
  ...editableObject,
  entries: [],
  changeable: ["document", "labels", "annotations", "drift_policy", "protected"],
};
