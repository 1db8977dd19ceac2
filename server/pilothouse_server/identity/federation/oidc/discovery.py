"""An issuer's discovery document (OpenID Connect Discovery 1.0): the addresses of its endpoints.

The document must name that issuer, character by character: otherwise one issuer could direct codes that are meant for
another issuer to an address of its own. If the issuer's address is HTTPS, all endpoints must be HTTPS too.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pilothouse_server.identity.federation.oidc.fetching import IssuerFailed, IssuerHttp
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.outbound.destinations import AddressRefused, Reach, origin

PATH: Final = "/.well-known/openid-configuration"


class Discovery(msgspec.Struct, frozen=True):
    """The addresses of an issuer's endpoints; '' for endpoints that it does not offer.

    `names_itself`: its responses through the browser name the issuer (RFC 9207), so a response without the name is
    refused.
    """

    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    device_authorization_endpoint: str = ""
    names_itself: bool = False


async def discover(config: IssuerConfig, http: IssuerHttp, reach: Reach) -> Discovery:
    """Fetches an issuer's discovery document. Raises IssuerFailed."""
    found = await http.get(config.issuer.rstrip("/") + PATH)
    if found.get("issuer") != config.issuer:
        raise IssuerFailed("its discovery document does not name this issuer")
    schemes = (config.address.scheme,) if config.address.scheme == "https" else ("https", "http")

    def address(name: str) -> str:
        return _address(found, name, schemes, reach)

    discovery = Discovery(
        jwks_uri=address("jwks_uri"),
        authorization_endpoint=address("authorization_endpoint"),
        token_endpoint=address("token_endpoint"),
        device_authorization_endpoint=address("device_authorization_endpoint"),
        names_itself=found.get("authorization_response_iss_parameter_supported") is True,
    )
    if not discovery.jwks_uri:
        raise IssuerFailed("its discovery document has no jwks_uri")
    return discovery


def _address(found: dict[str, Any], name: str, schemes: tuple[str, ...], reach: Reach) -> str:
    text = found.get(name, "")
    if text == "":
        return ""
    try:
        if not isinstance(text, str):
            raise AddressRefused("is not a string")
        reach.check(origin(text, schemes=schemes, path=True).host)
    except AddressRefused as error:
        raise IssuerFailed(f"{name} of its discovery document {error}") from None
    return text
