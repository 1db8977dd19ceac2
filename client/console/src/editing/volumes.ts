import { AccessModeSchema, VolumeSchema, VolumeTypeSchema } from "../gen/pilothouse/storage/v1/storage_pb";
import { volumes } from "../lib/clients/volumes";
import { choicesOf, type Editable } from "../lib/editing";

export const editableVolume: Editable<typeof VolumeSchema> = {
  noun: "volume",
  schema: VolumeSchema,
  createPermission: "storage.create",
  updatePermission: "storage.update",
  hasNamespace: true,
  entries: [
    { label: "Size", path: ["size"], kind: "text", example: "10Gi" },
    { label: "Type", path: ["type"], kind: "choice", choices: choicesOf(VolumeTypeSchema) },
    { label: "Access", path: ["access_mode"], kind: "choice", choices: choicesOf(AccessModeSchema) },
  ],
  start: "type: VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM\naccess_mode: ACCESS_MODE_READ_WRITE_ONCE\nsize: 1Gi\n",
  create: (namespace, volume, how) => volumes.createVolume({ namespace, volume, ...how }),
  update: (before, volume, paths, how) => volumes.updateVolume({ namespace: before.namespace, name: before.name, volume, updateMask: { paths }, etag: before.etag, ...how }),
};

/** Of one that is there only these may change. */
export const changeableVolume: Editable<typeof VolumeSchema> = {
  ...editableVolume,
  entries: editableVolume.entries.slice(0, 1),
  changeable: ["size", "mount_path", "labels", "annotations"],
};
