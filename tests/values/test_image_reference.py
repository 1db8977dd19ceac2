"""Image references: examples from the authors of the reference grammar, and round trips of parsed references."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pilothouse_server.values.image_reference import ImageReference, image_problem

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "repository", "name", "tag", "digest", "registry"),
    [
        ("nginx", "", "nginx", "latest", "", "docker.io"),
        ("nginx:1.27", "", "nginx", "1.27", "", "docker.io"),
        ("bitnami/redis", "bitnami", "redis", "latest", "", "docker.io"),
        (f"ghcr.io/a/b@{SHA}", "ghcr.io/a", "b", "", SHA, "ghcr.io"),
        (f"host:5000/a/b:tag@{SHA}", "host:5000/a", "b", "tag", SHA, "host:5000"),
        ("localhost/a", "localhost", "a", "latest", "", "localhost"),
        ("Uppercase/a", "Uppercase", "a", "latest", "", "Uppercase"),
        ("[fc00::1]:5000/a:v", "[fc00::1]:5000", "a", "v", "", "[fc00::1]:5000"),
        ("test_com/foo", "test_com", "foo", "latest", "", "docker.io"),
        ("a/b/c/d/e-f__g.h:Tag.1_2-3", "a/b/c/d", "e-f__g.h", "Tag.1_2-3", "", "docker.io"),
        ("xn--n3h.com/myimage:x", "xn--n3h.com", "myimage", "x", "", "xn--n3h.com"),
    ],
)
def test_a_reference_is_split_into_its_parts(
    text: str, repository: str, name: str, tag: str, digest: str, registry: str
) -> None:
    image = ImageReference.parse(text)
    assert (image.repository, image.name, image.tag, image.digest) == (repository, name, tag, digest)
    assert image.registry == registry


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "must be an image"),
        (":tag", "must be an image"),
        ("/a", "must be an image"),
        ("a/", "must be an image"),
        ("a//b", "must be an image"),
        ("../b", "registry"),
        ("a/../b", "must be an image"),
        ("Nginx", "must be an image"),
        ("a/B", "must be an image"),
        ("nginx:", "tag"),
        ("nginx:-x", "tag"),
        ("nginx:a b", "tag"),
        ("nginx:" + "x" * 129, "tag"),
        ("nginx@", "digest"),
        ("nginx@sha256:abc", "digest"),
        ("nginx@" + SHA.upper(), "digest"),
        ("nginx@sha512:" + "a" * 64, "digest"),
        ("-host.io/a", "registry"),
        ("host.io:port/a", "registry"),
        ("https://host.io/a", "registry"),
        ("a__-b", "must be an image"),
        ("a...b", "must be an image"),
        ("-a", "must be an image"),
        ("a/" + "b" * 255, "longer"),
        ("f" * 64, "identifier"),
        ("ngіnx", "must be an image"),
        ("nginx\n", "must be an image"),
        ("nginx\x00:x", "must be an image"),
    ],
)
def test_a_refusal_names_the_wrong_part(text: str, part: str) -> None:
    problem = image_problem(text)
    assert problem is not None
    assert part in problem


@pytest.mark.parametrize("registry", ["docker.io/library/", "index.docker.io/library/", "library/", ""])
def test_an_image_has_one_shortest_form(registry: str) -> None:
    assert str(ImageReference.parse(f"{registry}nginx:1").normalised()) == "nginx:1"


def test_other_registries_keep_their_library() -> None:
    assert str(ImageReference.parse("ghcr.io/library/nginx:1").normalised()) == "ghcr.io/library/nginx:1"
    assert str(ImageReference.parse("docker.io/team/app:1").normalised()) == "team/app:1"


components = st.from_regex(r"[a-z0-9]{1,8}(?:[_.-][a-z0-9]{1,8}){0,2}", fullmatch=True)
registries = st.sampled_from(["", "ghcr.io/", "localhost:5000/", "10.0.0.1:80/", "[::1]/"])
tags = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
digests = st.sampled_from(["", f"@{SHA}"])


@given(registries, st.lists(components, min_size=1, max_size=4), tags, digests)
def test_a_parsed_reference_round_trips(registry: str, parts: list[str], tag: str, digest: str) -> None:
    # A first part that looks like a host must be a valid host, without underscores: `a_b.c/d` is refused.
    assume(registry or len(parts) == 1 or not {".", "_"} <= set(parts[0]))
    text = f"{registry}{'/'.join(parts)}{tag}{digest}"
    image = ImageReference.parse(text)
    assert image.name == parts[-1]
    assert str(image) == (text if tag or digest else f"{text}:latest")
    assert ImageReference.parse(str(image)) == image
    assert image.normalised().normalised() == image.normalised()
