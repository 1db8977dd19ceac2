"""The canonical form, in which equivalent containers are equal: images, quantities, and fields set by a manifest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.messages import message, values
from pilothouse_server.applications.translation.messages.canonical import (
    DECIDED_FIELDS,
    amount,
    canonical,
    image,
)

# Fields that the caller may set but a manifest cannot express: apply does not change them.
UNTOUCHED_FIELDS = (
    "name",
    "display_name",
    "drift_policy",
    "pod_container_name",
    "selector",
    "runs_kept",
    "revisions_kept",
    "extra_fields",
    "etag",
)


def test_every_container_field_is_decided_untouched_or_server_set() -> None:
    decided = {*DECIDED_FIELDS, *UNTOUCHED_FIELDS}
    given_by_caller = {
        field.name
        for field in pb.Container.DESCRIPTOR.fields
        if field.number < 50 and field.name not in ("namespace", "uid")
    }
    assert given_by_caller == decided - {"etag"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nginx", "nginx:latest"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("index.docker.io/team/app", "team/app:latest"),
        ("library/nginx", "nginx:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
        ("ghcr.io/library/b:1", "ghcr.io/library/b:1"),
    ],
)
def test_two_references_to_one_image_are_equal(one: str, other: str) -> None:
    assert image(one) == image(other) == other


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100m", "0.1"),
        ("0.1", "0.1"),
        ("1.50", "1.5"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2e3", "2000"),
        ("1E", "1000000000000000000"),
        ("5E3", "5000"),
        ("100n", "0.0000001"),
        ("0", "0"),
        ("", ""),
        ("lots", "lots"),
    ],
)
def test_quantities_are_compared_as_numbers(text: str, number: str) -> None:
    assert amount(text) == number


@given(st.integers(0, 10**12))
def test_a_quantity_has_the_same_amount_in_every_unit(millis: int) -> None:
    assert amount(f"{millis}m") == amount(f"{millis * 1000}u") == amount(f"{millis}e-3")


@pytest.mark.parametrize("entries", range(2, 40, 4))
def test_every_entry_of_resource_maps_is_compared_as_a_number(entries: int) -> None:
    amounts_given = {f"example.com/device-{number}": "1Ki" for number in range(entries)}
    found = canonical(
        pb.Container(resources=pb.Resources(limits=amounts_given, requests=amounts_given))
    ).resources
    for amounts in (found.limits, found.requests):
        assert dict(amounts) == dict.fromkeys(amounts_given, "1024")


def test_every_source_of_a_variable_round_trips() -> None:
    for number in pb.EnvValueFrom.values():
        if number:
            made = pb.Container(env=[pb.EnvVar(name="A", value_from=number, source_key="limits.cpu")])
            assert message(pb.Container, values(made)) == made
