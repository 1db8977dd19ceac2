"""The composition root: the only module that imports all others.

It creates and connects the parts, and starts and stops them in order.

Start: check the database and the schema → shipped roles, first administrator → feed → background work → gRPC, which
is healthy once the feed has reached the head. Stop: health reports NOT_SERVING → open streams end with the request to
reconnect elsewhere → calls in flight end within the grace → last audit records → background work → database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import prometheus_client
import structlog

from pilothouse_migrations import schema
from pilothouse_server.applications.following import ApplicationFollower
from pilothouse_server.applications.noun import applications_noun
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.applications.tables import APPLICATION_TABLES
from pilothouse_server.audit import kept_heads
from pilothouse_server.audit.kept_heads import KeptHeads
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.noun import audit_jobs, audit_noun
from pilothouse_server.audit.sealing import Sealer
from pilothouse_server.audit.sinks.making import SenderMaker
from pilothouse_server.audit.sinks.runner import SinkRunner
from pilothouse_server.audit.sinks.service import SinkRules
from pilothouse_server.audit.sinks.tables import SINK_TABLES
from pilothouse_server.audit.tiles_http import TilesServer
from pilothouse_server.audit.witnesses import Witnessing
from pilothouse_server.clusters.access import ClusterAccess, Kubeconfigs
from pilothouse_server.clusters.operations import registration
from pilothouse_server.clusters.refusals import Connect, in_a_seat, unavailability, unless_away
from pilothouse_server.clusters.tables import CLUSTER_TABLES
from pilothouse_server.config.noun import config_noun
from pilothouse_server.config.operations import rotation
from pilothouse_server.config.tables import CONFIG_TABLES
from pilothouse_server.containers.drift_rules import DriftRules
from pilothouse_server.containers.noun import containers_noun
from pilothouse_server.containers.quota import quota_usage
from pilothouse_server.containers.service_events import write_owned_services
from pilothouse_server.containers.tables import CONTAINER_TABLES
from pilothouse_server.containers.volume_events import write_owned_volumes
from pilothouse_server.dashboard.noun import dashboard_noun
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.hsm import token_keys
from pilothouse_server.encryption.keys import KeyRing, providers
from pilothouse_server.errors import PilothouseError
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.flowcontrol.reservation import before_cluster
from pilothouse_server.identity.access.refusal_reasons import RefusalReasons
from pilothouse_server.identity.accounts.bootstrap import Bootstrap, bootstrap
from pilothouse_server.identity.authenticator.certificate_authenticator import (
    CertificateAuthenticator,
    EitherAuthenticator,
)
from pilothouse_server.identity.authenticator.token_authenticator import TokenAuthenticator
from pilothouse_server.identity.credentials.operations import second_factors
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuers
from pilothouse_server.identity.federation.operations import federated_users
from pilothouse_server.identity.noun import WATCHES, IdentityDependencies, identity_services
from pilothouse_server.identity.service.messages import SERVICE as IDENTITY_SERVICE
from pilothouse_server.identity.tables import IDENTITY_TABLES
from pilothouse_server.importing.orphans import OrphanImports
from pilothouse_server.importing.service import ImportHandler, ObjectImportHandler, ServiceImportHandler
from pilothouse_server.kubernetes import connection
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.metrics.messages import watch_answer
from pilothouse_server.metrics.noun import ROLL_UP, metrics_noun
from pilothouse_server.metrics.operations import DatabaseGauges, UsageStore
from pilothouse_server.metrics.tables import METRICS_TABLES
from pilothouse_server.metrics.usage_stream import UsageStream
from pilothouse_server.namespaces.contents import Contents
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.namespaces.model import Quota
from pilothouse_server.namespaces.noun import namespaces_noun
from pilothouse_server.namespaces.tables import NAMESPACE_TABLES
from pilothouse_server.network.noun import network_noun
from pilothouse_server.network.operations import count as count_services
from pilothouse_server.network.tables import NETWORK_TABLES
from pilothouse_server.objects.noun import objects_noun
from pilothouse_server.objects.tables import OBJECT_TABLES
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.reconcile.apply.config_reconciler import ConfigReconciler
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler
from pilothouse_server.reconcile.apply.namespace_reconciler import NamespaceReconciler
from pilothouse_server.reconcile.apply.object_reconciler import ObjectReconciler
from pilothouse_server.reconcile.apply.service_reconciler import ServiceReconciler
from pilothouse_server.reconcile.apply.volume_reconciler import VolumeReconciler
from pilothouse_server.reconcile.observe.container_observer import ContainerObserverSettings
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.worker import Reconcilers, WorkerSettings
from pilothouse_server.reconcile.reconciler import Reconciler, ReconcilerSettings
from pilothouse_server.revisions.tables import REVISION_TABLES
from pilothouse_server.rpc import interceptors, method_rules, redaction
from pilothouse_server.rpc.idempotency import IdempotencyKeeper
from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.rpc.pipeline import Pipeline
from pilothouse_server.rpc.server import GrpcServer, build, rules_and_handlers
from pilothouse_server.rpc.tls.serving import Serving
from pilothouse_server.rpc.watched import WatchLimits, WatchServer
from pilothouse_server.runtime.supervision import Supervisor
from pilothouse_server.settings.model import (
    DATABASES,
    PREFIX,
    Settings,
    SettingsError,
    address_refused,
    header_names,
    outbound_networks,
    trusted_peers,
)
from pilothouse_server.storage.noun import storage_noun
from pilothouse_server.storage.operations import count_storage, write_mount_events
from pilothouse_server.storage.tables import STORAGE_TABLES
from pilothouse_server.store import rewind_detection
from pilothouse_server.store.audit_writer import AuditWriter
from pilothouse_server.store.backfill import BACKFILL_SECONDS, Watched, backfill_messages
from pilothouse_server.store.engine import Database, plain_dsn
from pilothouse_server.store.feed import Feed
from pilothouse_server.store.follow_ups import FollowUps
from pilothouse_server.store.noun_tables import sealed_tables
from pilothouse_server.store.periodic import (
    MAKE_PARTITIONS,
    Periodic,
    PeriodicWork,
    earlier_now,
    standard_jobs,
)
from pilothouse_server.store.rewind_detection import RewindDetector
from pilothouse_server.store.unit_of_work import ReadTransaction, Store
from pilothouse_server.values.database_address import tls_problem, weakness
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.quantity import Quantity
from pilothouse_server.values.resources import NamespaceId
from pilothouse_server.watch.hub import Hub

if TYPE_CHECKING:
    from pilothouse_server.gateway.server import HttpGateway

log = structlog.get_logger(__name__)

# Twice the number of objects that are reconciled concurrently (`WorkerSettings`), so that callers and watches also get
# connections.
_CLUSTER_CONNECTIONS = 128

# The tables of each noun, for the store. The commands use this list without a server.
NOUN_TABLES: Final = (
    APPLICATION_TABLES,
    OBJECT_TABLES,
    CONTAINER_TABLES,
    NETWORK_TABLES,
    STORAGE_TABLES,
    CONFIG_TABLES,
    REVISION_TABLES,
    METRICS_TABLES,
    SINK_TABLES,
    NAMESPACE_TABLES,
    CLUSTER_TABLES,
    IDENTITY_TABLES,
)
SEALED: Final = sealed_tables(NOUN_TABLES)


class Application:
    """One server. `start` returns the port; `stop` drains.

    An instance can be started and stopped once. `kubeconfigs` are the clusters of the server's own configuration, by
    name. `limits` replace the default limits and those of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        kubeconfigs: Kubeconfigs,
        *,
        reconciler: ReconcilerSettings | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self.settings = settings
        self._limits = limits or CallLimits(
            max_concurrent_calls=settings.max_concurrent_calls,
            max_calls_per_user=settings.max_calls_per_user,
            max_streams=settings.max_streams,
            max_streams_per_user=settings.max_streams_per_user,
        )
        self.bootstrap: Bootstrap | None = None
        self.database = Database.connect(settings)
        self.store = Store(self.database)
        self._kubeconfigs = kubeconfigs
        self._keys = KeyRing.of(settings)
        self.envelopes = Envelopes(self._keys, token_keys(settings), providers(settings))
        self.hub = Hub(settings.event_ring_size)
        self._rewind_detector = RewindDetector(self.store, settings.data_dir / rewind_detection.FILE_NAME)
        self.feed = Feed(self.store, self.hub, self._rewind_detector)
        self.audit_writer = AuditWriter(self.store)
        self.sealer = Sealer(
            self.store,
            LogIdentity.load(settings, self._keys),
            lambda: self.hub.records.newest,
            period_seconds=settings.audit_seal_seconds,
            kept=KeptHeads(settings.data_dir / kept_heads.FILE_NAME),
            look_again=self.feed.look_again,
        )
        self.tiles = (
            TilesServer(
                self.store,
                self.sealer.identity.policy,
                settings.audit_tiles_listen,
                shared=settings.processes > 1,
            )
            if settings.audit_tiles_listen
            else None
        )
        self._reach = Reach(outbound_networks(settings.outbound_networks))
        self.sinks = SinkRunner(
            self.store,
            self.envelopes,
            SenderMaker(settings.audit_sink_dir, self._reach),
            self.hub.records.beyond,
            newest=lambda: self.hub.records.newest,
        )
        self.usage = UsageStore(self.store)
        self.usage_stream = UsageStream(self.store, watch_answer)
        self.cluster_access = ClusterAccess(
            self.store,
            self.envelopes,
            kubeconfigs,
            seconds=settings.cluster_timeout_seconds,
            limits=TransportLimits(
                connections=_CLUSTER_CONNECTIONS,
                requests_per_second=settings.cluster_requests_per_second,
                burst=int(2 * settings.cluster_requests_per_second) or 1,
            ),
            reach=self._reach,
        )
        self._rights = NounRights(settings, self.envelopes)
        self._document_key = self._keys.derive("application-documents")
        self._follower = ApplicationFollower(self.store, self._rights, self._document_key)
        self.clusters = ClusterClients(self.cluster_access.connect)
        self.cluster_access.known_away = self.clusters.away
        drift_rules = DriftRules(
            PermittedAdditions(settings.drift_additions),
            KeyPatterns(settings.guarded_pod_keys, guarding=True),
        )
        self.reconcilers: Reconcilers = {
            "container": ContainerReconciler(drift_rules),
            "namespace": NamespaceReconciler(),
            "config_map": ConfigReconciler("config_map", self.envelopes),
            "secret": ConfigReconciler("secret", self.envelopes),
            "volume": VolumeReconciler(),
            "service": ServiceReconciler(self._rights.services(lambda _: False), drift_rules),
            "object": ObjectReconciler(self._rights.objects(lambda _: False), drift_rules),
        }
        self.reconciler = Reconciler(
            self.store,
            self.clusters,
            self.usage,
            reconciler
            or ReconcilerSettings(
                worker=WorkerSettings(
                    # The feed's own poll also finds work that is due.
                    poll_seconds=5.0,
                ),
                containers=ContainerObserverSettings(permitted=drift_rules.permitted),
            ),
            reconcilers=self.reconcilers,
        )
        self.watched: dict[str, Watched] = {}
        self._jobs: list[Periodic] = []
        self._passwords = Passwords()
        self.issuers = TrustedIssuers.load(settings, self._reach)
        self._new_passwords = NewPasswords(self._passwords, settings)
        self.authenticator = TokenAuthenticator.of(self.store, settings)
        self.tls = Serving.of(settings)
        self._clients = None if self.tls is None else self.tls.clients
        # Identifies the caller by a token, and by a certificate if clients show one.
        self._callers = (
            self.authenticator
            if self._clients is None
            else EitherAuthenticator(
                self.authenticator,
                CertificateAuthenticator(
                    self.store, self._clients, cache_seconds=settings.principal_cache_seconds
                ),
            )
        )
        self._authorization = AuthorizationLayer(self._callers, RefusalReasons(self.store))
        self.audit = AuditLayer(
            self.audit_writer,
            IdempotencyKeeper(self._keys.derive("idempotency")),
            self.authenticator.namespace_id,
            redaction.header_rule(header_names(settings.audit_headers)),
        )
        self._supervisor = Supervisor()
        self._server: GrpcServer | None = None
        # The HTTP port, if there is one.
        self.gateway: HttpGateway | None = None

    @property
    def password_made(self) -> str | None:
        """The first administrator's password, if this start made it; it is not stored."""
        return self.bootstrap.random_password if self.bootstrap is not None else None

    async def start(self, before_listening: Callable[[], Awaitable[None]] | None = None) -> int:
        """Starts everything and returns the listening port.

        With several processes, `before_listening` is awaited before this one listens.

        Raises:
            pilothouse_migrations.schema.MigrationError: the schema is not this release's.
            DeclarationError: the proto files leave a declaration open.
            Unavailable: the database or a key token is unreachable, or no key provider can decrypt some stored values.
            SettingsError: the address is taken, or a role that the settings name does not exist.
        """
        await self._check_schema()
        await rotation.begin(self.store, self.envelopes, SEALED)
        await self.sealer.begin()
        self._server = self._build_server()
        # With several processes, the supervisor reserves the address, and this process must not accept connections
        # before it can serve them.
        port = self._server.bind() if self.settings.processes == 1 else None
        # After the address is bound: a password that is made here is shown once, and a failed start would lose it.
        self.bootstrap = await bootstrap(self.store, self._new_passwords, self.settings.bootstrap_password)
        await second_factors.check_roles(self.store, self.settings)
        await federated_users.check_roles(self.store, (issuer.config for issuer in self.issuers))
        await self._register_clusters()
        self.store.on_committed = self._committed
        self.feed.on_grants_changed = self._callers.invalidate
        self.feed.on_changes = self.reconciler.wake
        if self.tls is not None:
            self._supervisor.start("files of TLS", self.tls.run)
        if self.envelopes.token is not None:
            self._supervisor.start("token of keys", self.envelopes.token.keep_sealing)
        self._supervisor.start("audit writer", self.audit_writer.run)
        self._supervisor.start("sums of refusals", self.audit.sum_up)
        self._supervisor.start("audit sinks", self.sinks.run)
        self._supervisor.start("feed", self.feed.run)
        self._supervisor.start("reconciler", self.reconciler.run)
        follow_ups = FollowUps(self.store, (write_mount_events, write_owned_services, write_owned_volumes))
        self._supervisor.start("follow-ups of commits", follow_ups.run)
        self._supervisor.start("statuses of applications", self._follower.run)
        self._supervisor.start("idle connections", self.database.close_unneeded)
        self._supervisor.start("lost sessions", self.database.close_dead_connections)
        self._supervisor.start("usage stream", self.usage_stream.run)
        rendering = Periodic(
            "render messages again", BACKFILL_SECONDS, lambda: backfill_messages(self.store, self.watched)
        )
        standard = standard_jobs(self.store, self.settings, NOUN_TABLES)
        tidying = Periodic("end what issuers do not confirm", federated_users.TIDY_SECONDS, self._tidy)
        jobs = [*standard, *self._jobs, rendering, tidying, *self._backups()]
        periodic = PeriodicWork(self.store, jobs)
        self.feed.on_partitions_wanted = lambda: periodic.run_now(MAKE_PARTITIONS)

        def reset_after_rewind() -> None:
            """Drops state that belongs to the history before the rewind of the database."""
            self._callers.invalidate()
            self.usage_stream.reset_after_rewind()
            self.reconciler.reset_after_rewind()
            for job in (MAKE_PARTITIONS, ROLL_UP):
                periodic.run_now(job)

        self.feed.on_new_history = reset_after_rewind
        self._rewind_detector.on_tampering = self.sealer.tampered
        self._supervisor.start("periodic work", periodic.run)
        self._supervisor.start("audit sealer", self.sealer.run)
        if self.sealer.identity.policy.witnesses:
            witnessing = Witnessing(self.store, self.sealer.identity.policy)
            self.sealer.on_sealed = witnessing.seal_made
            self._supervisor.start("audit witnesses", witnessing.run)
        # With several processes, the supervisor collects the metrics of each.
        if self.settings.metrics_listen or self.settings.processes > 1:
            self._supervisor.start("gauges of the database", DatabaseGauges(self.store).run)
        await self.feed.started()
        if port is None:
            if before_listening is not None:
                await before_listening()
            port = self._server.bind()
        await self._server.start()
        await self._server.serving(True)
        self._serve_metrics()
        await self._serve_http()
        return port

    async def stop(self) -> None:
        """Drains and stops the server.

        Calls in flight and bidirectional streams may continue within the grace. Other open streams end with the request
        to resume elsewhere.
        """
        if self._server is not None:
            await self._server.serving(False)
            grace = self.settings.grace_seconds
            self._authorization.drain(grace)
            http = () if self.gateway is None else (self.gateway.close(grace),)
            await asyncio.gather(self._server.stop(grace), *http)
        if self.tiles is not None:
            await self.tiles.close()
        self.audit.flush()
        await self.audit_writer.close()
        await self._supervisor.stop()
        await self.sealer.close()
        await self.clusters.close()
        await self._callers.close()
        self._passwords.close()
        await self.issuers.close()
        await self.envelopes.close()
        await self.database.close()

    async def _check_schema(self) -> None:
        for name in DATABASES:
            if mode := weakness(getattr(self.settings, name), os.environ):
                log.warning(
                    "the certificate of the database is not fully verified: anyone who intercepts the "
                    "connection could impersonate the database",
                    setting=f"{PREFIX}{name.upper()}",
                    sslmode=mode,
                )
        dsn = self.settings.maintenance_database_url or self.settings.database_url
        try:
            await schema.check(plain_dsn(dsn))
        except OSError as error:
            # Only the type of the library's error: its text may contain the address with its password.
            why = tls_problem(error) or f"cannot connect to the database ({type(error).__name__})"
            name = "MAINTENANCE_DATABASE_URL" if self.settings.maintenance_database_url else "DATABASE_URL"
            raise SettingsError(f"{PREFIX}{name}: {why}") from None

    def _build_server(self) -> GrpcServer:
        page_key = self._keys.derive("page-token")
        watches = WatchServer(
            self.feed,
            self.hub,
            self._keys.derive("resume-token"),
            named_namespace,
            WatchLimits(self.settings.watch_max_lag_events),
        )
        nouns = self._nouns(watches, page_key)
        parts = {name: part for noun in nouns for name, part in noun.watches.items()} | WATCHES
        nouns.append(dashboard_noun(watches, page_key, self._connect(), parts))
        for noun in nouns:
            self.watched |= noun.watched
            self._jobs += noun.jobs
            self.store.renderers |= noun.rendered
        self.store.renderers |= {name: each.render for name, each in self.watched.items()}
        descriptors: dict[Any, Sequence[object]] = {noun.service.DESCRIPTOR: [noun.service] for noun in nouns}
        identity = IDENTITY_SERVICE
        permissions = method_rules.permissions([*descriptors, identity]).union(
            *(noun.permissions for noun in nouns)
        )
        declared = method_rules.load([*descriptors, identity]).values()
        descriptors[identity] = identity_services(
            IdentityDependencies(
                self.store,
                self.settings,
                self._passwords,
                self._keys,
                self.envelopes,
                permissions,
                declared,
                watches,
                self.issuers,
                self._limits.wait_seconds,
            )
        )
        rules, handlers = rules_and_handlers(descriptors, self._limits.max_message_bytes)
        layers = interceptors.standard_layers(self.audit, self._authorization)
        trusted = trusted_peers(self.settings.trusted_proxies)
        admission = CallAdmission(self._limits)
        admission.known_away = self._away
        pipeline = Pipeline(
            rules,
            handlers,
            layers,
            self.store,
            self._callers,
            admission=admission,
            trusted_proxies=trusted,
            clients=self._clients,
        )
        if self.settings.http_listen:
            # Imported here so that a server without the HTTP port does not load aiohttp and the page.
            from pilothouse_server.gateway.server import HttpGateway

            name = self._keys.derive("console").hex()[:12]
            self.gateway = HttpGateway(
                self.settings, pipeline, rules, name, self.tls, log_ins=self.issuers.log_ins
            )
        return build(self.settings, pipeline, rules, descriptors, self.tls)

    @property
    def asking_port(self) -> int | None:
        """The second port, which requires client certificates, or None."""
        return None if self._server is None else self._server.asking_port

    def _away(self, cluster: str) -> PilothouseError | None:
        error = self.clusters.away(cluster)
        return None if error is None else unavailability(error, cluster)

    def _connect(self) -> Connect:
        """Returns the function by which calls get a cluster's client.

        It refuses clusters that are known to be unreachable, and acquires a seat at the others.
        """
        return unless_away(in_a_seat(self.clusters.client, before_cluster), self.clusters.away)

    def _nouns(self, watches: WatchServer, page_key: bytes) -> list[Noun]:
        """Returns the nouns, in the order in which a namespace's contents are deleted."""
        connect = self._connect()
        keys, objects = self._rights.keys, self._rights.guarded
        in_namespaces = [
            applications_noun(watches, page_key, connect, self._rights, self._document_key),
            objects_noun(watches, page_key, connect, ObjectImportHandler(connect), keys, objects, self.store),
            containers_noun(
                watches, page_key, connect, ImportHandler(connect, self.envelopes, keys), keys, self.store
            ),
            network_noun(watches, page_key, connect, ServiceImportHandler(connect), keys, objects),
            storage_noun(watches, page_key, connect, self._rights.mounter, objects),
            config_noun(watches, page_key, connect, self.envelopes, SEALED, self._rights.readers, objects),
        ]
        contents = Contents(
            nouns=[noun.in_namespaces for noun in in_namespaces if noun.in_namespaces is not None],
            quota_usage=_quota_usage,
        )
        return [
            *in_namespaces,
            namespaces_noun(
                watches,
                page_key,
                self.cluster_access,
                contents,
                self._rights.namespaces,
                OrphanImports(connect, self.envelopes, keys, self._rights.services),
            ),
            audit_noun(
                watches,
                page_key,
                self.sealer,
                SinkRules(self.settings.audit_sink_dir, self._reach, self.envelopes),
                audit_jobs(self.store, self.settings, self.sealer.identity, self.sinks.have),
            ),
            metrics_noun(self.store, self.settings, self.usage, self.usage_stream, page_key),
        ]

    def _backups(self) -> list[Periodic]:
        """Returns the jobs of scheduled backups, if the settings have any."""
        if self.settings.backup_dir is None:
            return []
        from pilothouse_server.backup.schedule import scheduled

        return [scheduled(self.settings, self.store, SEALED)]

    def _committed(self) -> None:
        self.feed.committed()
        self._follower.wake()

    async def _tidy(self) -> None:
        await federated_users.tidy(self.store, await earlier_now(self.store))

    async def _register_clusters(self) -> None:
        async with self.store.system_write("configuration") as transaction:
            for name, kubeconfig in self._kubeconfigs.items():
                cluster, _ = connection.select(kubeconfig, None)
                await registration.put_configured(transaction, name, connection.shown_address(cluster))

    async def _serve_http(self) -> None:
        for other in (self.tiles, self.gateway):
            if other is not None:
                await other.start()

    def _serve_metrics(self) -> None:
        if self.settings.metrics_listen:
            host, _, port = self.settings.metrics_listen.rpartition(":")
            try:
                prometheus_client.start_http_server(int(port), host or "127.0.0.1")
            except (OSError, ValueError, OverflowError):
                raise address_refused(self.settings.metrics_listen, "METRICS_LISTEN") from None


async def _quota_usage(transaction: ReadTransaction, namespace_id: NamespaceId) -> Quota:
    """Returns the sums that count against the quota of a namespace."""
    services = await count_services(transaction, namespace_id)
    storage = Quantity.from_bytes(await count_storage(transaction, namespace_id)).text
    usage = await quota_usage(transaction, namespace_id)
    return msgspec.structs.replace(usage, services=services, storage=storage)
