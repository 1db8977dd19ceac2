// The watches that several pages have in common.

import { ApplicationService, type Application, type WatchApplicationsResponse } from "../gen/pilothouse/application/v1/application_pb";
import { ContainerService, type Container, type WatchContainersResponse } from "../gen/pilothouse/container/v1/container_pb";
import { NamespaceService, type Namespace, type WatchNamespacesResponse } from "../gen/pilothouse/namespace/v1/namespace_pb";
import { live, type Live } from "./live.svelte";

export const watchNamespaces = (): Live<Namespace> =>
  live(NamespaceService.method.watchNamespaces, {}, (change: WatchNamespacesResponse) => change.namespace);

export const watchContainers = (namespace = "", name = "", fields?: string[]): Live<Container> =>
  live(ContainerService.method.watchContainers, { namespace, name }, (change: WatchContainersResponse) => change.container, fields);

export const watchApplications = (namespace = "", name = ""): Live<Application> =>
  live(ApplicationService.method.watchApplications, { namespace, name }, (change: WatchApplicationsResponse) => change.application);
