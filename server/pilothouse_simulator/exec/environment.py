"""The environment of a program in a simulated container: environment variables and files.

The variables are those of the container's `env` and `envFrom`, and those that every container has; references to config
maps and secrets are read from the store. The files are those that every container has, and those of volumes from config
maps, secrets and fields of the pod.
"""

from __future__ import annotations

import base64
import re
from math import ceil
from typing import TYPE_CHECKING, Any

from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import CONFIG_MAPS, SECRETS

if TYPE_CHECKING:
    from pilothouse_simulator.store.store import ObjectStore

JsonObject = dict[str, Any]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")


def environment_of(store: ObjectStore, pod: JsonObject, container: JsonObject) -> dict[str, str]:
    """Returns the environment variables, in their order, of a container that starts now."""
    namespace = pod["metadata"]["namespace"]
    variables = {
        "PATH": _PATH,
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "HOME": "/root",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        for name, content in _source(store, namespace, source).items():
            variables[prefix + name] = content.decode(errors="replace")
    for entry in container.get("env") or []:
        value = _value(store, pod, container, entry)
        if value is not None:
            variables[entry["name"]] = _REFERENCE.sub(
                lambda match: "$" if match[1] is None else variables.get(match[1], match[0]), value
            )
    return variables


def files_of(store: ObjectStore, pod: JsonObject, container: JsonObject) -> dict[str, bytes]:
    """Returns the files of a container, contents by path: those mounted from config maps, secrets and fields of the
    pod, and those that every container has.
    """
    namespace = pod["metadata"]["namespace"]
    files = {
        "/etc/hostname": (pod["metadata"]["name"] + "\n").encode(),
        "/var/run/secrets/kubernetes.io/serviceaccount/namespace": namespace.encode(),
    }
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"]) or {}
        content: dict[str, bytes] = {}
        for each in (volume, *((volume.get("projected") or {}).get("sources") or [])):
            content |= _shown(store, pod, each)
        _mount(files, mount, content)
    return files


def _shown(store: ObjectStore, pod: JsonObject, volume: JsonObject) -> dict[str, bytes]:
    """Returns the files of a volume, or of one source of a projected volume, by their paths in the volume."""
    namespace = pod["metadata"]["namespace"]
    content: dict[str, bytes] = {}
    for source, path in ((volume.get("configMap"), "configMapRef"), (volume.get("secret"), "secretRef")):
        if source is None:
            continue
        name = source.get("name") or source.get("secretName") or ""
        found = _source(store, namespace, {path: {"name": name}})
        if source.get("items"):
            found = {item["path"]: found[item["key"]] for item in source["items"] if item["key"] in found}
        content |= found
    for item in (volume.get("downwardAPI") or {}).get("items") or []:
        if "fieldRef" in item:
            text = _field(pod, str(item["fieldRef"].get("fieldPath", "")))
        else:
            reference = item.get("resourceFieldRef") or {}
            programs = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
            named = [each for each in programs if each["name"] == reference.get("containerName")]
            text = _amount(named[0], reference) if named else ""
        content[item["path"]] = text.encode()
    if (token := volume.get("serviceAccountToken")) is not None:
        account = pod["spec"].get("serviceAccountName", "default")
        content[token["path"]] = f"simulated token of {namespace}/{account}".encode()
    return content


def _mount(files: dict[str, bytes], mount: JsonObject, content: dict[str, bytes]) -> None:
    if mount.get("subPath"):
        if mount["subPath"] in content:
            files[mount["mountPath"]] = content[mount["subPath"]]
        return
    for name, data in content.items():
        files[f"{mount['mountPath'].rstrip('/')}/{name}"] = data


def _source(store: ObjectStore, namespace: str, source: JsonObject) -> dict[str, bytes]:
    """Returns the content of the config map or secret in `configMapRef` or `secretRef`; empty if it does not exist."""
    for reference, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
        if not source.get(reference):
            continue
        found = store.get(resource, namespace, source[reference].get("name", "")) or {}
        data = {name: base64.b64decode(value) for name, value in (found.get("binaryData") or {}).items()}
        for name, value in (found.get("data") or {}).items():
            data[name] = base64.b64decode(value) if resource is SECRETS else str(value).encode()
        return data
    return {}


def _value(store: ObjectStore, pod: JsonObject, container: JsonObject, entry: JsonObject) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return str(entry.get("value") or "")
    namespace = pod["metadata"]["namespace"]
    for key, reference in (("configMapKeyRef", "configMapRef"), ("secretKeyRef", "secretRef")):
        if key in origin:
            content = _source(store, namespace, {reference: origin[key]})
            found = content.get(origin[key].get("key", ""))
            return None if found is None else found.decode(errors="replace")
    if "fieldRef" in origin:
        return _field(pod, str(origin["fieldRef"].get("fieldPath", "")))
    if "resourceFieldRef" in origin:
        return _amount(container, origin["resourceFieldRef"])
    return ""


def _amount(container: JsonObject, reference: JsonObject) -> str:
    kind, _, name = str(reference.get("resource", "")).partition(".")
    amount = ((container.get("resources") or {}).get(kind) or {}).get(name, "0")
    # The amount in units of the divisor (default: one byte or one core), rounded up.
    return str(ceil(parse_quantity(amount) / (parse_quantity(reference.get("divisor") or "0") or 1)))


def _field(pod: JsonObject, path: str) -> str:
    match = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if match is not None:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    found: Any = pod
    for name in path.split("."):
        found = found.get(name, "") if isinstance(found, dict) else ""
    if isinstance(found, dict):
        # All labels or annotations, one per line.
        return "\n".join(f'{key}="{value}"' for key, value in sorted(found.items()))
    return str(found)
