"""The sources of credentials for `pilothouse clusters`: a kubeconfig, an address and a token, or the server's own pod.

The server never reads files that a caller names. So this module replaces a kubeconfig's references to local files by
their content. Only the part of the kubeconfig that its context names is sent.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError

Kubeconfig = Annotated[
    str, verbs.Option("--kubeconfig", metavar="FILE", help="Kubeconfig; '-': standard input.")
]
Context = Annotated[
    str, verbs.Option("--kube-context", help="Context of the kubeconfig; default its current one.")
]
ApiServer = Annotated[str, verbs.Option("--api-server", metavar="URL", help="Address of the API server.")]
TokenStdin = Annotated[bool, verbs.Option("--token-stdin", help="Read the token from standard input.")]
CaFile = Annotated[str, verbs.Option("--ca-file", metavar="FILE", help="PEM file of authorities to trust.")]
ProxyUrl = Annotated[str, verbs.Option("--proxy-url", help="Proxy to connect through.")]
InCluster = Annotated[
    bool, verbs.Option("--in-cluster", help="Use the service account of the server's own pod.")
]

# For cluster and user: the entry that names a file -> the entry for its content, and whether that is in base64.
_FILES = {
    "certificate-authority": ("certificate-authority-data", True),
    "client-certificate": ("client-certificate-data", True),
    "client-key": ("client-key-data", True),
    "tokenFile": ("token", False),
}


def credentials(
    kubeconfig: str,
    context: str,
    api_server: str,
    token_stdin: bool,
    ca_file: str,
    proxy_url: str,
    in_cluster: bool,
) -> pb.ClusterCredentials | None:
    """Returns the credentials that the options give; None if they give none.

    Raises CommandError if they conflict."""
    if sum(map(bool, (kubeconfig, api_server, in_cluster))) > 1:
        raise CommandError("--kubeconfig, --api-server and --in-cluster exclude each other", 2)
    if context and not kubeconfig:
        raise CommandError("--kube-context needs --kubeconfig", 2)
    if (token_stdin or ca_file or proxy_url) and not api_server:
        raise CommandError("--token-stdin, --ca-file and --proxy-url need --api-server", 2)
    if in_cluster:
        return pb.ClusterCredentials(in_cluster=pb.InCluster())
    if kubeconfig:
        return pb.ClusterCredentials(kubeconfig=_kubeconfig(kubeconfig, context))
    if not api_server:
        return None
    if not token_stdin:
        raise CommandError("--api-server needs a token: give it with --token-stdin", 2)
    token = sys.stdin.readline().strip()
    if not token:
        raise CommandError("the token is empty", 2)
    authority = _read(Path(ca_file)).decode("utf-8", "replace") if ca_file else ""
    address = pb.ClusterAddress(
        api_server=api_server, token=token, certificate_authority=authority, proxy_url=proxy_url
    )
    return pb.ClusterCredentials(address=address)


def _kubeconfig(path: str, context: str) -> pb.Kubeconfig:
    import yaml

    folder = Path() if path == "-" else Path(path).resolve().parent
    text = sys.stdin.read() if path == "-" else _read(Path(path)).decode("utf-8", "replace")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        raise CommandError(f"{path} is not YAML", 2) from None
    if not isinstance(document, dict):
        raise CommandError(f"{path} is not a kubeconfig", 2)
    name = context or document.get("current-context")
    chosen = _named(document, "contexts", "context", name)
    wanted: dict[str, Any] = {"current-context": name, "contexts": [{"name": name, "context": chosen}]}
    for kind in ("cluster", "user"):
        entry = _named(document, f"{kind}s", kind, chosen.get(kind))
        if entry:
            wanted[f"{kind}s"] = [{"name": chosen[kind], kind: _with_files(entry, folder)}]
    # The server reports missing parts by name.
    return pb.Kubeconfig(text=yaml.safe_dump(wanted))


def _named(document: Mapping[str, Any], section: str, kind: str, name: object) -> dict[str, Any]:
    entries = document.get(section)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
            return dict(entry[kind])
    return {}


def _with_files(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    for key, (data, encoded) in _FILES.items():
        path = entry.pop(key, None)
        # As in kubectl, content takes precedence over a file.
        if path and not entry.get(data):
            content = _read(folder / str(path))
            entry[data] = (
                base64.b64encode(content).decode() if encoded else content.decode("utf-8", "replace").strip()
            )
    return entry


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or 'cannot be read').lower()}", 2) from None
