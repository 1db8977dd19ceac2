import { ContainerSchema } from "../gen/pilothouse/container/v1/container_pb";
import { containers } from "../lib/clients/containers";
import type { Editable } from "../lib/editing";

export const editableContainer: Editable<typeof ContainerSchema> = {
  noun: "container",
  schema: ContainerSchema,
  createPermission: "container.create",
  updatePermission: "container.update",
  hasNamespace: true,
  entries: [
    { label: "Image", path: ["image"], kind: "text", example: "nginx:1.27" },
    { label: "Replicas", path: ["replicas"], kind: "number", example: "1" },
  ],
  start: "image: nginx:1.27\nreplicas: 1\n# env:\n# - {name: LEVEL, value: info}\n# ports:\n# - {container_port: 80}\n",
  create: (namespace, container, how) => containers.createContainer({ namespace, container, ...how }),
  update: (before, container, paths, how) =>
    containers.updateContainer({ namespace: before.namespace, name: before.name, container, updateMask: { paths }, etag: before.etag, includeChanges: true, ...how }),
};
