"""Manifests for the tests of `apply`, and helpers that translate their text into containers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.apply.documents import parse
from pilothouse_client.apply.messages import message, values
from pilothouse_manifests.translator.attach import WantedContainer, attach
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.manifest import Manifest, ManifestWorkload
from pilothouse_manifests.translator.nodes import Document
from pilothouse_manifests.translator.problems import InputProblem, Problems

NAMESPACE = "cafe"
CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "deploy" / "examples" / "harbor-cafe.yaml"
# A real application that must not be committed here; it is next to the checkout where the project is developed.
SAMPLE = CHECKOUT.parent / "shared" / "samples" / "online-boutique.yaml"

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: server
        image: nginx:1.27
        ports:
        - {name: http, containerPort: 8080}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
"""


def web(extra: str = "", *, pod: str = "", container: str = "", name: str = "web") -> str:
    """Returns the Deployment `web` with more lines, and `web` replaced with `name`.

    The lines are added to `spec` (from line 7), to the pod (from line 13) or to its container (from line 16).
    """
    text = WEB.replace("  selector:\n", textwrap.indent(_lines(extra), "  ") + "  selector:\n", 1)
    text = text.replace("      containers:\n", textwrap.indent(_lines(pod), " " * 6) + "      containers:\n")
    text = text.replace("        ports:\n", textwrap.indent(_lines(container), " " * 8) + "        ports:\n")
    return text.replace("web", name)


def _lines(text: str) -> str:
    return textwrap.dedent(text).strip("\n") + "\n" if text else ""


def documents(*texts: str) -> list[Document]:
    """Returns the documents of texts, which must be valid YAML."""
    problems = Problems()
    read = parse("---\n".join(texts), "web.yaml", problems)
    assert not problems.all, problems.all
    return read


def found(text: str, existing: Sequence[pb.Container] = ()) -> list[str]:
    """Returns the problems of a text, as they are printed."""
    return [str(problem) for problem in problems_of(text, existing)]


def problems_of(text: str, existing: Sequence[pb.Container] = ()) -> tuple[InputProblem, ...]:
    problems = Problems()
    attach(
        convert(parse(text, "web.yaml", problems), NAMESPACE, problems), [values(each) for each in existing]
    )
    return problems.all


def wanted(*texts: str, existing: Sequence[pb.Container] = ()) -> list[WantedContainer]:
    """Returns the desired containers of texts, which must have no problem."""
    problems = Problems()
    manifest = convert(documents(*texts), NAMESPACE, problems)
    result = attach(manifest, [values(each) for each in existing])
    assert not problems.all, problems.all
    return result


def container(*texts: str, existing: Sequence[pb.Container] = ()) -> pb.Container:
    """Returns the only container that the texts describe."""
    (only,) = wanted(*texts, existing=existing)
    return in_message(only)


def in_message(said: WantedContainer | ManifestWorkload) -> pb.Container:
    """Returns a container as the message that is sent."""
    return message(pb.Container, said.values)


def volumes_of(manifest: Manifest) -> dict[str, storage_pb2.Volume]:
    """Returns the volumes of a manifest, by name, as the messages that are sent."""
    return {each.name: message(storage_pb2.Volume, each.values) for each in manifest.volumes}
