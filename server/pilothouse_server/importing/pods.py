"""From a pod template to the parts of a container: the way back of `manifest_pod`.

The API has written its defaults into a live object; what says no more than a default says nothing here, so that it
stays with whoever owns it, and our apply changes nothing.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from pilothouse_server.containers.model import (
    ContainerSpec,
    EmptyDir,
    EnvVar,
    Exec,
    Grpc,
    HttpGet,
    HttpHeader,
    InitContainer,
    MountedVolume,
    PodSecurityContext,
    Port,
    Probe,
    Probes,
    Resources,
    SeccompProfile,
    SecurityContext,
    TakenOverVolume,
    TcpSocket,
    Toleration,
    VolumeMount,
)
from pilothouse_server.importing.fields import Fields
from pilothouse_server.values.image_reference import ImageReference, image_problem
from pilothouse_server.values.volumes import VolumeType

DEFAULT_GRACE_SECONDS = 30
# 0644 of files that show a config map or a secret.
DEFAULT_MODE = 420

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63


class PodVolume(msgspec.Struct, frozen=True):
    """A volume of a pod that is no emptyDir: its name there, and what it is here.

    `read_only`: the pod says so of the whole claim.
    """

    name: str
    volume: MountedVolume
    read_only: bool = False


class MainContainer(msgspec.Struct, frozen=True):
    """What of the one container of a pod is no part of `ContainerSpec`."""

    image: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources = Resources()
    volumes: tuple[PodVolume, ...] = ()
    order: tuple[TakenOverVolume, ...] = ()


def read_pod(pod: Fields) -> tuple[MainContainer, ContainerSpec]:
    """Read a pod template's spec; what cannot be represented is noted in `pod.problems`."""
    pod.ignore("serviceAccount", restartPolicy="Always", dnsPolicy="ClusterFirst")
    pod.ignore(schedulerName="default-scheduler", enableServiceLinks=True)
    grace = pod.take("terminationGracePeriodSeconds")
    empty_dirs, volumes, order = _volumes(pod)
    spec = ContainerSpec(
        service_account=pod.text("serviceAccountName", "default"),
        image_pull_secrets=tuple(item.text("name") for item in pod.items("imagePullSecrets")),
        termination_grace_seconds=None if grace == DEFAULT_GRACE_SECONDS else grace,
        node_selector=pod.labels("nodeSelector"),
        pod_security_context=_pod_security(pod.part("securityContext")),
        tolerations=tuple(_toleration(item) for item in pod.items("tolerations", "key")),
        empty_dirs=tuple(empty_dirs),
        init_containers=tuple(_init(item) for item in pod.items("initContainers")),
    )
    containers = pod.take("containers", [])
    if len(containers) != 1:
        names = ", ".join(str(container.get("name")) for container in containers)
        pod.refuse("containers", f"a container is one, here are {len(containers)}: {names}")
        pod.close()
        return MainContainer(volumes=tuple(volumes), order=tuple(order)), spec
    main = Fields(containers[0], f"spec.template.spec.containers[{containers[0].get('name')}]", pod.problems)
    read, spec = _main(main, spec)
    main.close()
    pod.close()
    return msgspec.structs.replace(read, volumes=tuple(volumes), order=tuple(order)), spec


def _main(main: Fields, spec: ContainerSpec) -> tuple[MainContainer, ContainerSpec]:
    image, policy = _image(main)
    spec = msgspec.structs.replace(
        spec,
        pod_container_name=main.text("name"),
        image_pull_policy=policy,
        command=main.texts("command"),
        args=main.texts("args"),
        security_context=_security(main.part("securityContext")),
        probes=Probes(
            liveness=_probe(main.part("livenessProbe")),
            readiness=_probe(main.part("readinessProbe")),
            startup=_probe(main.part("startupProbe")),
        ),
    )
    read = MainContainer(
        image=image,
        env=_env(main),
        ports=tuple(_ports(main)),
        volume_mounts=_mounts(main),
        resources=_resources(main.part("resources")),
    )
    _ignore_defaults(main)
    return read, spec


def _init(init: Fields) -> InitContainer:
    image, policy = _image(init)
    read = InitContainer(
        name=init.text("name"),
        image=image,
        image_pull_policy=policy,
        command=init.texts("command"),
        args=init.texts("args"),
        env=_env(init),
        volume_mounts=_mounts(init),
        resources=_resources(init.part("resources")),
        security_context=_security(init.part("securityContext")),
    )
    _ignore_defaults(init)
    return read


def _ignore_defaults(container: Fields) -> None:
    container.ignore(terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")


def _image(container: Fields) -> tuple[str, str]:
    image, policy = container.text("image"), container.text("imagePullPolicy")
    if problem := image_problem(image):
        container.refuse("image", problem)
        return "", policy
    reference = ImageReference.parse(image)
    default = "Always" if reference.tag == "latest" and not reference.digest else "IfNotPresent"
    return image, "" if policy == default else policy


def _env(container: Fields) -> tuple[EnvVar, ...]:
    return tuple(_variable(item) for item in container.items("env"))


def _variable(item: Fields) -> EnvVar:
    name, value, source = item.text("name"), str(item.take("value", "")), item.part("valueFrom")
    if source is None:
        return EnvVar(name=name, value=value)
    read = EnvVar(name=name)
    if (field := source.part("fieldRef")) is not None:
        field.ignore(apiVersion="v1")
        read = EnvVar(name=name, value_from="field_ref", source_key=field.text("fieldPath"))
        field.close()
    for kind, key in (("config_map", "configMapKeyRef"), ("secret", "secretKeyRef")):
        if (reference := source.part(key)) is not None:
            read = msgspec.convert(
                {
                    "name": name,
                    "value_from": kind,
                    "source_name": reference.text("name"),
                    "source_key": reference.text("key"),
                    "optional": bool(reference.take("optional", False)),
                },
                EnvVar,
            )
            reference.close()
    source.close()
    return read


def _ports(container: Fields) -> list[Port]:
    ports = []
    for item in container.items("ports", "containerPort"):
        number, protocol = item.number("containerPort"), item.text("protocol") or "TCP"
        if protocol not in ("TCP", "UDP"):
            item.refuse("protocol", f"{protocol} cannot be represented")
            continue
        described = {
            "container_port": number,
            "protocol": protocol,
            "name": item.text("name"),
            "host_port": item.take("hostPort"),
            "service_type": "None",
        }
        ports.append(msgspec.convert(described, Port))
    return ports


def _resources(resources: Fields | None) -> Resources:
    if resources is None:
        return Resources()
    amounts: dict[str, str] = {}
    for part, suffix in (("requests", "request"), ("limits", "limit")):
        if (given := resources.part(part)) is not None:
            for kind in ("cpu", "memory"):
                amounts[f"{kind}_{suffix}"] = given.text(kind)
            given.close()
    resources.close()
    return Resources(**amounts)


def _mounts(container: Fields) -> tuple[VolumeMount, ...]:
    return tuple(
        VolumeMount(
            volume=item.text("name"),
            mount_path=item.text("mountPath"),
            read_only=bool(item.take("readOnly", False)),
            sub_path=item.text("subPath"),
        )
        for item in container.items("volumeMounts", "mountPath")
    )


def _volumes(pod: Fields) -> tuple[list[EmptyDir], list[PodVolume], list[TakenOverVolume]]:
    """Volumes that the model has, and all of them in their order.

    Of a config map or a secret it has no more than every key as a file of the default mode.
    """
    empty_dirs: list[EmptyDir] = []
    volumes: list[PodVolume] = []
    order: list[TakenOverVolume] = []
    for item in pod.items("volumes"):
        name, directory = item.text("name"), item.take("emptyDir")
        if directory is not None:
            given: dict[str, Any] = dict(directory)
            empty_dirs.append(EmptyDir(name, given.get("medium", ""), str(given.get("sizeLimit", "") or "")))
            order.append(TakenOverVolume(name, name))
        if (claim := item.part("persistentVolumeClaim")) is not None:
            claim_name, read_only = claim.text("claimName"), bool(claim.take("readOnly", False))
            mounted = MountedVolume(
                volume_name("claim", claim_name), "persistent_volume_claim", kubernetes_name=claim_name
            )
            volumes.append(PodVolume(name, mounted, read_only))
            claim.close()
        kinds: tuple[tuple[VolumeType, str, str], ...] = (
            ("config_map", "configMap", "name"),
            ("secret", "secret", "secretName"),
        )
        for kind, word, key in kinds:
            if (shown := item.part(word)) is not None:
                shown.ignore(defaultMode=DEFAULT_MODE)
                source = shown.text(key)
                called = volume_name(word.lower(), source)
                volumes.append(PodVolume(name, MountedVolume(called, kind, source_name=source)))
                shown.close()
        order += [TakenOverVolume(name, each.volume.name) for each in volumes if each.name == name]
    return empty_dirs, volumes, order


def volume_name(word: str, source: str) -> str:
    """What the volume of a claim or source is called here: as `pilothouse apply` calls it, so that either finds the
    other's.
    """
    name = source if word == "claim" else f"{word}-{source}"
    if len(name) <= _LONGEST_NAME and _LABEL.fullmatch(name):
        return name
    shown = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")[:40].strip("-")
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return "-".join(part for part in (word, shown, digest) if part)


def _probe(probe: Fields | None) -> Probe | None:
    if probe is None:
        return None
    read = None
    if (http := probe.part("httpGet")) is not None:
        port, port_name = _port_or_name(http)
        headers = tuple(
            HttpHeader(h.text("name"), str(h.take("value", ""))) for h in http.items("httpHeaders")
        )
        # `/` and HTTP are the API's defaults, and those of the model.
        read = Probe(
            HttpGet(
                path=http.text("path") or "/",
                port=port,
                port_name=port_name,
                scheme=http.text("scheme") or "HTTP",
                host=http.text("host"),
                http_headers=headers,
            )
        )
        http.close()
    elif (tcp := probe.part("tcpSocket")) is not None:
        port, port_name = _port_or_name(tcp)
        read = Probe(TcpSocket(port=port, port_name=port_name, host=tcp.text("host")))
        tcp.close()
    elif (command := probe.part("exec")) is not None:
        read = Probe(Exec(command=command.texts("command")))
        command.close()
    elif (grpc := probe.part("grpc")) is not None:
        read = Probe(Grpc(port=grpc.number("port"), service=grpc.text("service")))
        grpc.close()
    if read is not None:
        read = msgspec.structs.replace(
            read,
            initial_delay_seconds=probe.number("initialDelaySeconds"),
            period_seconds=probe.number("periodSeconds", 10),
            timeout_seconds=probe.number("timeoutSeconds", 1),
            success_threshold=probe.number("successThreshold", 1),
            failure_threshold=probe.number("failureThreshold", 3),
            termination_grace_seconds=probe.number("terminationGracePeriodSeconds"),
        )
    probe.close()
    return read


def _port_or_name(action: Fields) -> tuple[int, str]:
    port = action.take("port", 0)
    return (port, "") if isinstance(port, int) else (0, str(port))


def _security(context: Fields | None) -> SecurityContext | None:
    if context is None:
        return None
    capabilities = context.part("capabilities")
    read = SecurityContext(
        run_as_user=context.take("runAsUser"),
        run_as_group=context.take("runAsGroup"),
        run_as_non_root=context.take("runAsNonRoot"),
        allow_privilege_escalation=context.take("allowPrivilegeEscalation"),
        privileged=context.take("privileged"),
        read_only_root_filesystem=context.take("readOnlyRootFilesystem"),
        capabilities_add=capabilities.texts("add") if capabilities else (),
        capabilities_drop=capabilities.texts("drop") if capabilities else (),
        seccomp_profile=_seccomp(context.part("seccompProfile")),
    )
    context.close()
    return None if read == SecurityContext() else read


def _pod_security(context: Fields | None) -> PodSecurityContext | None:
    if context is None:
        return None
    read = PodSecurityContext(
        run_as_user=context.take("runAsUser"),
        run_as_group=context.take("runAsGroup"),
        run_as_non_root=context.take("runAsNonRoot"),
        fs_group=context.take("fsGroup"),
        fs_group_change_policy=context.text("fsGroupChangePolicy"),
        supplemental_groups=tuple(context.take("supplementalGroups", ())),
        seccomp_profile=_seccomp(context.part("seccompProfile")),
    )
    context.close()
    return None if read == PodSecurityContext() else read


def _seccomp(profile: Fields | None) -> SeccompProfile | None:
    return SeccompProfile(profile.text("type"), profile.text("localhostProfile")) if profile else None


def _toleration(item: Fields) -> Toleration:
    return Toleration(
        key=item.text("key"),
        operator=item.text("operator"),
        value=item.text("value"),
        effect=item.text("effect"),
        toleration_seconds=item.take("tolerationSeconds"),
    )
