"""Image references: `nginx`, `nginx:1.27`, `ghcr.io/a/b@sha256:…`, `host:5000/a/b:tag@digest`.

The grammar is that of the `distribution` project, which Docker, containerd and the kubelet use. A reference is split
into the columns of `container_images`: `repository` (registry and path before the last part, as written; empty for the
default registry), `name` (the last part), `tag`, `digest`. Without tag and digest, the tag is `latest`, as in every
runtime. A container stores its image as it is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pilothouse_server.values import InvalidValueError

DEFAULT_TAG = "latest"
DEFAULT_REGISTRY = "docker.io"
LONGEST_REPOSITORY = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[_.]|__|-+)[a-z0-9]+)*"
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image. `str()` returns it with its tag."""

    repository: str
    name: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parses a reference.

        Raises:
            InvalidValueError: the text breaks the grammar; the message names the place.
        """
        remainder, at, digest = text.partition("@")
        if at:
            _check_digest(digest)
        path, tag = _split_tag(remainder)
        if tag is not None and not _TAG.fullmatch(tag):
            raise InvalidValueError(
                "the tag must begin with a letter, digit or _, and have at most 128 letters, digits, _ . or -"
            )
        repository, name = _split_path(path)
        if tag is None and not digest:
            return cls(repository, name, DEFAULT_TAG)
        return cls(repository, name, tag or "", digest)

    @property
    def path(self) -> str:
        """Repository and name, without tag and digest."""
        return f"{self.repository}/{self.name}" if self.repository else self.name

    @property
    def registry(self) -> str:
        """Returns the host that serves the image, such as `ghcr.io`; `docker.io` if the reference names none."""
        first = self.repository.split("/", 1)[0]
        return first if _is_domain(first) else DEFAULT_REGISTRY

    def normalised(self) -> ImageReference:
        """Returns the shortest reference to the same image: `docker.io/library/nginx` is `nginx`."""
        parts = self.repository.split("/") if self.repository else []
        if parts and parts[0] in (DEFAULT_REGISTRY, "index.docker.io"):
            parts = parts[1:]
        if parts == ["library"]:
            parts = []
        return ImageReference("/".join(parts), self.name, self.tag, self.digest)

    def __str__(self) -> str:
        return self.path + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def image_problem(text: str) -> str | None:
    """Returns the rule that `text` breaks as an image reference, or None."""
    try:
        ImageReference.parse(text)
    except InvalidValueError as error:
        return str(error)
    return None


def _is_domain(part: str) -> bool:
    # The rule of `distribution`: a first part is a host only if it cannot be a part of a path.
    return "." in part or ":" in part or part == "localhost" or part.lower() != part


def _split_tag(text: str) -> tuple[str, str | None]:
    colon = text.rfind(":")
    if colon > text.rfind("/"):
        return text[:colon], text[colon + 1 :]
    return text, None


def _split_path(path: str) -> tuple[str, str]:
    if len(path) > LONGEST_REPOSITORY:
        raise InvalidValueError(f"the name must not be longer than {LONGEST_REPOSITORY} characters")
    first, slash, rest = path.partition("/")
    if slash and _is_domain(first):
        if not _DOMAIN.fullmatch(first):
            raise InvalidValueError("the registry must be a host name or address, with :port where needed")
    else:
        first, rest = "", path
    if not _PATH.fullmatch(rest):
        raise InvalidValueError(
            "must be an image such as nginx:1.27 or ghcr.io/team/app@sha256:…: the name's parts have lower-case"
            " letters and digits, with single . or _ , __ or dashes between"
        )
    if not first and _IDENTIFIER.fullmatch(rest):
        raise InvalidValueError(
            "must be a name, not an image identifier; write name@sha256:… for an exact image"
        )
    folder, _, name = rest.rpartition("/")
    return "/".join(part for part in (first, folder) if part), name


def _check_digest(digest: str) -> None:
    algorithm, _, hexadecimal = digest.partition(":")
    if len(hexadecimal) != _DIGEST_LENGTHS.get(algorithm) or not _HEXADECIMAL.fullmatch(hexadecimal):
        raise InvalidValueError(
            "the digest must be sha256:, sha384: or sha512:, then 64, 96 or 128 lower-case hexadecimal digits"
        )
