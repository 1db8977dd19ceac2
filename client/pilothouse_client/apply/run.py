"""`pilothouse apply` from its arguments to its exit code; the command itself only reads the arguments.

All problems that can be found in the files, in the server's present state, and by a trial of every step are found
before anything is changed: one problem refuses the whole input. After that each object stands for itself: config maps
and secrets first, then volumes, which may show them, then the containers, which may use all of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import IO

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply.configs import ConfigExecutor, ConfigStep, plan_configs
from pilothouse_client.apply.documents import load
from pilothouse_client.apply.execute import ApplyOutcome, Executor
from pilothouse_client.apply.messages import values
from pilothouse_client.apply.objects import ObjectExecutor, ObjectStep, plan_objects
from pilothouse_client.apply.outcome import ApplyResult, Options, Say, refuse
from pilothouse_client.apply.plan import Step, plan
from pilothouse_client.apply.preview import preview
from pilothouse_client.apply.quota import check_quota
from pilothouse_client.apply.rollout import wait
from pilothouse_client.apply.services import ServiceExecutor, ServiceStep, plan_services
from pilothouse_client.apply.trial import ApplySteps, try_out
from pilothouse_client.apply.volumes import VolumeExecutor, plan_volumes
from pilothouse_client.errors import NotFoundError, PermissionDeniedError, PilothouseError
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.translator.attach import attach, owned_services
from pilothouse_manifests.translator.convert import convert, unknown_kinds
from pilothouse_manifests.translator.convert_volume import use_existing_claims, use_present_names
from pilothouse_manifests.translator.externals import mark_external
from pilothouse_manifests.translator.literals import literals
from pilothouse_manifests.translator.manifest import Manifest, ManifestService
from pilothouse_manifests.translator.nodes import Document
from pilothouse_manifests.translator.problems import Problems, counts, listed

_PAGE_SIZE = 1000


def apply(
    client: Nouns[BlockingTransport],
    options: Options,
    *,
    say: Say,
    complain: Say,
    standard_input: IO[bytes] | None = None,
) -> ApplyResult:
    """Applies the sources. `say` takes the completed steps, `complain` the others.

    Raises:
        PilothouseError: the server cannot be asked, or the namespace is not there.
    """
    problems = Problems()
    planned = _planned(client, options, problems, complain, standard_input)
    if planned is None:
        return ApplyResult.REFUSED
    steps, namespace = planned
    _warn(steps.containers, complain)
    trial = try_out(client, options.namespace, steps, problems)
    for warning in listed(trial.warnings):
        complain(f"warning: {warning}")
    if namespace.HasField("resource_quota"):
        usage = client.namespaces.get_quota_usage.send(
            namespace_pb2.GetQuotaUsageRequest(name=options.namespace)
        )
        check_quota(steps.containers, usage, trial.refused, problems)
    outcome = ApplyOutcome()
    if options.dry_run:
        preview(steps, trial, outcome, say, complain)
    if problems.refused(options.skip):
        refuse(problems, options.skip, complain)
        return ApplyResult.REFUSED
    if not options.dry_run:
        _carry_out(client, options.namespace, steps, outcome, say, complain)
    running = True
    if options.wait and not options.dry_run:
        applied = list(outcome.applied.values())
        running = wait(
            client,
            options.namespace,
            applied,
            options.timeout_seconds,
            options.patience,
            say,
            complain,
        )
    left_out = problems.skipped(options.skip)
    say(_summary(outcome, options) + (f"; left out: {counts(left_out)}" if left_out else ""))
    if outcome.failed:
        return ApplyResult.FAILED
    if not running:
        return ApplyResult.NOT_RUNNING
    return ApplyResult.LEFT_OUT if left_out else ApplyResult.DONE


def _carry_out(
    client: Nouns[BlockingTransport],
    namespace: str,
    steps: ApplySteps,
    outcome: ApplyOutcome,
    say: Say,
    complain: Say,
) -> None:
    ConfigExecutor(client.config, namespace, say=say, complain=complain).carry_out(steps.configs, outcome)
    VolumeExecutor(client.storage, namespace, say=say, complain=complain).carry_out(steps.volumes, outcome)
    ServiceExecutor(client.network, namespace, say=say, complain=complain).carry_out(steps.services, outcome)
    objects = ObjectExecutor(client.objects, namespace, say=say, complain=complain)
    objects.carry_out((each for each in steps.objects if each.comes_first), outcome)
    Executor(client.containers, namespace, say=say, complain=complain).carry_out(steps.containers, outcome)
    objects.carry_out((each for each in steps.objects if not each.comes_first), outcome)


def _planned(
    client: Nouns[BlockingTransport],
    options: Options,
    problems: Problems,
    complain: Say,
    standard_input: IO[bytes] | None,
) -> tuple[ApplySteps, namespace_pb2.Namespace] | None:
    """The steps to take and where; None if the input is refused, after every reason was given."""
    documents = load(options.sources, problems, standard_input)
    manifest = convert(documents, options.namespace, problems, _opened_kinds(client, documents, options))
    if not documents and not problems.all:
        complain("nothing to apply: the input holds no document")
        return None
    for note in problems.notes:
        complain(f"note: {note}")
    # Checks that need only the files, without a call.
    if problems.refused(options.skip):
        refuse(problems, options.skip, complain)
        return None
    namespace = client.namespaces.get(name=options.namespace)
    there = client.containers.list(namespace=options.namespace, page_size=_PAGE_SIZE)
    # One that is being deleted is no longer there to be changed; the server refuses its name until it is gone.
    existing = [container for container in there if not container.HasField("delete_time")]
    described = [values(each) for each in existing]
    mark_external(
        manifest,
        namespace.external_sources,
        described,
        lambda kind, name: _is_missing(client, options.namespace, kind, name),
    )
    owned = owned_services(described)
    joined = replace(manifest, services=[each for each in manifest.services if each.name in owned])
    volumes = _existing_volumes(client, manifest, options)
    _use_claims(manifest, volumes, complain)
    steps = ApplySteps(
        containers=plan(attach(joined, described), existing, problems, replace=options.replace),
        services=_planned_services(
            client, [each for each in manifest.services if each.name not in owned], options
        ),
        configs=_planned_configs(client, manifest, options, problems),
        volumes=plan_volumes(manifest.volumes, volumes or (), problems),
        objects=_planned_objects(client, manifest, options),
    )
    if problems.refused(options.skip):
        refuse(problems, options.skip, complain)
        return None
    for line in listed(problems.skipped(options.skip)):
        complain(f"left out: {line}")
    return steps, namespace


def _planned_configs(
    client: Nouns[BlockingTransport], manifest: Manifest, options: Options, problems: Problems
) -> list[ConfigStep]:
    """Only kinds in the manifest are read: a caller who applies none of a kind needs no permission to see any."""
    kinds = {each.kind for each in manifest.configs}
    where, config = options.namespace, client.config
    config_maps: Iterable[config_pb2.ConfigMap] = ()
    secrets: Iterable[config_pb2.Secret] = ()
    if "config_map" in kinds:
        config_maps = config.list_config_maps(namespace=where, page_size=_PAGE_SIZE)
    if "secret" in kinds:
        secrets = config.list_secrets(namespace=where, page_size=_PAGE_SIZE)
    return plan_configs(manifest.configs, config_maps, secrets, problems)


def _is_missing(client: Nouns[BlockingTransport], namespace: str, kind: str, name: str) -> bool:
    """Whether the platform does not have it; a caller who may not see it leaves the reference the platform's."""
    try:
        if kind == "config_map":
            client.config.get_config_map(namespace=namespace, name=name)
        else:
            client.config.get_secret(namespace=namespace, name=name)
    except NotFoundError:
        return True
    except PermissionDeniedError:
        return False
    return False


def _existing_volumes(
    client: Nouns[BlockingTransport], manifest: Manifest, options: Options
) -> list[storage_pb2.Volume] | None:
    """The volumes on the server, which are read only if the manifest makes or mounts any.

    None: the caller may not list them, and makes none.
    """
    if not manifest.volumes and not any(each.claims for each in manifest.workloads):
        return []
    try:
        return list(client.storage.list_volumes(namespace=options.namespace, page_size=_PAGE_SIZE))
    except PermissionDeniedError:
        if manifest.volumes:
            raise
        return None


def _use_claims(manifest: Manifest, volumes: list[storage_pb2.Volume] | None, complain: Say) -> None:
    """Has pods mount claims that are no volumes of the namespace as existing claims; if it is unknown, none is.

    Claims of the input that are volumes already get their names.
    """
    if volumes is None:
        return
    there = {each.kubernetes_name: each.name for each in volumes if each.kubernetes_name}
    known = {each.name: each.name for each in manifest.claims} | there
    use_present_names(manifest.claims, there)
    for workload in manifest.workloads:
        for claim in use_existing_claims(workload, known):
            complain(
                f"warning: {workload.place}: {workload.reporter.subject}: claim {claim!r} is no volume of the "
                "namespace: it must exist on the cluster, and is not counted and never deleted here"
            )


def _planned_services(
    client: Nouns[BlockingTransport], wanted: Sequence[ManifestService], options: Options
) -> list[ServiceStep]:
    """As with configuration: the Services on the server are read only if the manifest has any."""
    if not wanted:
        return []
    return plan_services(
        wanted, client.network.list_services(namespace=options.namespace, page_size=_PAGE_SIZE)
    )


def _planned_objects(
    client: Nouns[BlockingTransport], manifest: Manifest, options: Options
) -> list[ObjectStep]:
    """As with configuration: the objects on the server are read only if the manifest has any."""
    if not manifest.objects:
        return []
    existing = client.objects.list(
        namespace=options.namespace, page_size=_PAGE_SIZE, view=object_pb2.OBJECT_VIEW_FULL
    )
    return plan_objects(manifest.objects, existing)


def _opened_kinds(
    client: Nouns[BlockingTransport], documents: Sequence[Document], options: Options
) -> set[tuple[str, str]]:
    """The kinds of custom resources in the files that the cluster opens; it is asked only if there may be any."""
    unknown = unknown_kinds(documents)
    if not unknown:
        return set()
    try:
        kinds = client.objects.kinds(namespace=options.namespace)
    except PilothouseError:
        # Each document is reported by its kind then.
        return set()
    opened = (object_pb2.KIND_ACCESS_TENANTS, object_pb2.KIND_ACCESS_PRIVILEGED)
    return unknown & {
        (version, each.kind) for each in kinds if each.access in opened for version in each.versions
    }


def _warn(steps: Iterable[Step], complain: Say) -> None:
    """A line for each value in the clear that a step would set."""
    for step in steps:
        changed = {path.partition(".")[0] for path in step.update_mask} or None
        if step.before is not None and changed is None:
            continue
        for field, name in literals(step.wanted.values):
            if changed is None or field in changed:
                # Headers of probes and hooks cannot come from a Secret.
                advice = "" if name.startswith("header ") else ": put it into a Secret"
                complain(
                    f"warning: {step.wanted.place}: {step.subject}: {name} is plain text and visible "
                    f"to all who may see the container{advice}"
                )


def _summary(outcome: ApplyOutcome, options: Options) -> str:
    return outcome.summary + (" (dry run: nothing was changed)" if options.dry_run else "")
