"""Update masks: only paths that exist and may change."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.rpc.validation import check_update_mask


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], ()),
        (["image", "resources.cpu_limit"], ("image", "resources.cpu_limit")),
        (["image", "image"], ("image",)),
        (["resources", "resources.cpu_limit", "resources.cpu_request"], ("resources",)),
        (["resources.cpu_limit", "resources"], ("resources",)),
        (["resources_x", "resources"], None),
        (["labels"], ("labels",)),
    ],
)
def test_valid_paths_are_returned_without_duplicates(
    paths: list[str], expected: tuple[str, ...] | None
) -> None:
    if expected is None:
        with pytest.raises(InvalidArgument):
            check_update_mask(containers.Container, FieldMask(paths=paths))
    else:
        assert check_update_mask(containers.Container, FieldMask(paths=paths)) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("status", "set by the server"),
        ("uid", "set by the server"),
        ("name", "never changes"),
        ("etag", "compared"),
        ("colour", 'unknown path "colour"'),
        ("resources.colour", "unknown path"),
        ("ports.name", "unknown path"),
        ("labels.app", "unknown path"),
        ("image.tag", "unknown path"),
        ("", "unknown path"),
        ("image.", "unknown path"),
        (".", "unknown path"),
        ("x" * 5000, "malformed"),
        ("\x1b[31m", "malformed"),
    ],
)
def test_a_wrong_path_is_named(path: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_update_mask(containers.Container, FieldMask(paths=["image", path]))
    assert words in caught.value.message
    assert len(caught.value.message) < 1000
    assert [violation.field for violation in caught.value.violations] == ["update_mask"]


def test_a_method_may_allow_less() -> None:
    mask = FieldMask(paths=["image"])
    assert check_update_mask(containers.Container.DESCRIPTOR, mask, allowed={"image"}) == ("image",)
    with pytest.raises(InvalidArgument, match="updatable: replicas"):
        check_update_mask(containers.Container, mask, allowed={"replicas"})


def test_star_means_every_updatable_field() -> None:
    paths = check_update_mask(containers.Container, FieldMask(paths=["*"]))
    assert {"image", "labels", "replicas"} <= set(paths)
    assert not {"name", "status", "etag", "uid"} & set(paths)
    assert check_update_mask(containers.Container, FieldMask(paths=["*"]), allowed=["image"]) == ("image",)


def test_the_number_of_paths_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="256"):
        check_update_mask(containers.Container, FieldMask(paths=["image"] * 257))
