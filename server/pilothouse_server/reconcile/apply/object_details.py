"""Data of other objects in an object's status: certificates, and gateway addresses.

Only the certificate of a Secret is read, never the key. Nothing here prevents an apply: if a part cannot be read, the
status says so.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec

from pilothouse_server.kubernetes.errors import NotFound, Refused
from pilothouse_server.kubernetes.objects import TLS_SECRETS, AnyObject, Resource, TlsSecret
from pilothouse_server.objects import documents, health, references
from pilothouse_server.objects.kinds import resource_of
from pilothouse_server.objects.model import CarriedObject, ObjectCertificate
from pilothouse_server.reconcile.queue.leased_client import LeasedClient

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_WITH_DETAILS: Final = frozenset({references.INGRESS, references.GATEWAY_KIND, references.HTTP_ROUTE})
_MOST_NAMES: Final = 32
_LONGEST_CERTIFICATE: Final = 64 * 1024


class Details(msgspec.Struct, frozen=True):
    """`addresses`: those of a route's gateways; None if the object has its own."""

    certificates: tuple[ObjectCertificate, ...] = ()
    addresses: tuple[str, ...] | None = None

    @property
    def is_incomplete(self) -> bool:
        """Whether a part is missing that may appear without a change of the object."""
        return any(not each.present for each in self.certificates) or self.addresses == ()


async def look(client: LeasedClient, carried: CarriedObject) -> Details:
    """Returns the data of other objects. Raises ClusterError if the cluster does not respond."""
    kind = carried.api_group, carried.kind
    if kind not in _WITH_DETAILS:
        return Details()
    document, namespace = documents.manifest(carried), carried.kubernetes_namespace
    certificates = tuple(
        [await _certificate(client, namespace, name) for name in references.certificates(kind, document)]
    )
    if kind != references.HTTP_ROUTE:
        return Details(certificates)
    gateways = resource_of(carried.api_version, "Gateway", "gateways")
    parents = references.parents(kind, document, namespace)
    found = [each for parent in parents for each in await _addresses(client, gateways, *parent)]
    return Details(certificates, tuple(dict.fromkeys(found)))


async def _addresses(
    client: LeasedClient, gateways: Resource[AnyObject], namespace: str, name: str
) -> tuple[str, ...]:
    try:
        gateway = await client.find(gateways, namespace, name)
    except Refused:
        return ()
    return () if gateway is None else health.addresses(references.GATEWAY_KIND, gateway.status)


async def _certificate(client: LeasedClient, namespace: str, name: str) -> ObjectCertificate:
    try:
        secret = await client.find(TLS_SECRETS, namespace, name)
    except NotFound:
        secret = None
    except Refused:
        return ObjectCertificate(name, reason="NotReadable")
    if secret is None:
        return ObjectCertificate(name, reason="SecretNotFound")
    return read_certificate(name, secret)


def read_certificate(name: str, secret: TlsSecret) -> ObjectCertificate:
    """Returns the names and the expiry of a Secret's certificate."""
    # Imported here: it takes megabytes of memory, which most servers do not need.
    from cryptography import x509

    encoded = (secret.data.certificate if secret.data is not None else "")[:_LONGEST_CERTIFICATE]
    if not encoded:
        return ObjectCertificate(name, reason="NoCertificate")
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(encoded, validate=True))
        names = _names(certificate)
    except (binascii.Error, ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ObjectCertificate(name, reason="NotReadable")
    return ObjectCertificate(name, present=True, names=names, expires_at=certificate.not_valid_after_utc)


def _names(certificate: Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        subject = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value)[:253] for each in subject[:1])
    dns = extension.get_values_for_type(x509.DNSName)
    addresses = map(str, extension.get_values_for_type(x509.IPAddress))
    return tuple(each[:253] for each in (*dns, *addresses))[:_MOST_NAMES]
