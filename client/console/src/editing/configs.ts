import { ConfigMapSchema, SecretSchema } from "../gen/pilothouse/config/v1/config_pb";
import { configs } from "../lib/clients/configs";
import type { Editable } from "../lib/editing";

export const editableConfigMap: Editable<typeof ConfigMapSchema> = {
  noun: "config map",
  schema: ConfigMapSchema,
  createPermission: "config.create",
  updatePermission: "config.update",
  hasNamespace: true,
  entries: [],
  start: "data:\n  LEVEL: info\n",
  create: (namespace, configMap, how) => configs.createConfigMap({ namespace, configMap, ...how }),
  update: (before, configMap, paths, how) => configs.updateConfigMap({ namespace: before.namespace, name: before.name, configMap, updateMask: { paths }, etag: before.etag, ...how }),
};

export const editableSecret: Editable<typeof SecretSchema> = {
  noun: "secret",
  schema: SecretSchema,
  createPermission: "config.create",
  updatePermission: "config.update",
  hasNamespace: true,
  entries: [],
  hidden: ["data", "string_data"],
  start: "string_data:\n  PASSWORD: \n",
  create: (namespace, secret, how) => configs.createSecret({ namespace, secret, ...how }),
  update: (before, secret, paths, how) => configs.updateSecret({ namespace: before.namespace, name: before.name, secret, updateMask: { paths }, etag: before.etag, ...how }),
};

/** The keys that `string_data` names are set; all others stay as they are. */
export const changeableSecret: Editable<typeof SecretSchema> = { ...editableSecret, changeable: ["string_data", "immutable", "labels", "annotations"] };
