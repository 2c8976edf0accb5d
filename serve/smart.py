"""SMART Backend Services: a client signs with its private key and gets an access token (HL7 SMART App Launch 2.2).

Checks signatures, public keys (JWKS) and claims. Access tokens are random, and the database keeps their hash. Where
the site has an authorization server, its tokens (JWT) are checked in place of ours.
"""

import asyncio
import json
import secrets
import time
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from biomechgpt.core.logs import logger
from serve import scopes
from serve.audit import AuditLog
from serve.clients import Client, Clients
from serve.errors import ApiError
from serve.settings import IssuerSettings, SmartSettings

TOKEN_PATH = "/auth/token"  # noqa: S105 a path
"""Our token endpoint."""
CONFIGURATION = "/.well-known/smart-configuration"
GRANT = "client_credentials"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_ALGORITHMS = ("RS384", "ES384")
"""Signatures of clients, as SMART names them."""
ISSUER_ALGORITHMS = ("RS256", "RS384", "ES256", "ES384")
"""Signatures of an authorization server."""
MAX_ASSERTION_S = 300
"""Longest time that a client's signature may be valid."""
MAX_TOKEN_CHARS = 8192
_PREFIX = b"bgat_"
_MIN_RSA_BITS = 2048
_REFETCH_S = 10.0
_FETCH_TIMEOUT_S = 5.0
_MAX_JWKS_BYTES = 256 * 1024
_KEY_OF = {"RS": "RSA", "ES": "EC"}
_CURVE_OF = {"ES256": "P-256", "ES384": "P-384"}


class Refused(Exception):
    """A request for a token, or a token, is refused.

    code: of OAuth 2.0, such as invalid_client. description: why, for the client.
    """

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


class KeySets:
    """Public keys of clients and issuers, from files and URIs. They are read again after a while, or for a new key.

    lifetime_s: how long keys are used before they are read again.
    """

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._sets: dict[str, tuple[float, list[RSAKey | ECKey]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def find(self, source: str, kid: str, algorithm: str) -> RSAKey | ECKey:
        """The public key for a signature. Raises Refused if the source has none, ApiError if it cannot be read."""
        for max_age_s in (self.lifetime_s, min(_REFETCH_S, self.lifetime_s)):
            for key in await self._load(source, max_age_s):
                if key.kid == kid and _fits(key, algorithm):
                    return key
        raise Refused("invalid_client", f"kid: expected a {algorithm} key of the registered keys, found none")

    async def _load(self, source: str, max_age_s: float) -> list[RSAKey | ECKey]:
        async with self._locks.setdefault(source, asyncio.Lock()):
            read, keys = self._sets.get(source, (float("-inf"), []))
            if time.monotonic() - read < max_age_s:
                return keys
            try:
                keys = _parse(await asyncio.to_thread(_fetch, source))
            except (OSError, ValueError) as error:
                logger.error("public keys of %s cannot be read: %s", source, type(error).__name__)
                message = "the registered public keys cannot be read now; try again later"
                raise ApiError("busy", message, retry_after_s=10) from None
            self._sets[source] = (time.monotonic(), keys)
            return keys


class Smart:
    """Gives access tokens and checks them.

    settings: of SMART.
    clients: the registered ones.
    log: whose database keeps tokens.
    """

    def __init__(self, settings: SmartSettings, clients: Clients, log: AuditLog) -> None:
        self.settings, self.clients, self.log = settings, clients, log
        self.keys = KeySets(settings.jwks_lifetime_s)

    @property
    def issues_tokens(self) -> bool:
        """Whether this server has a token endpoint of its own."""
        return self.settings.issuer is None

    def configuration(self) -> dict[str, Any]:
        """What /.well-known/smart-configuration says."""
        issuer = self.settings.issuer
        return {
            **({"issuer": issuer.issuer} if issuer else {}),
            "token_endpoint": self.settings.token_endpoint,
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(CLIENT_ALGORITHMS),
            "grant_types_supported": [GRANT],
            "scopes_supported": list(scopes.SUPPORTED),
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
            # SMART demands this field of every server. It is for apps with a person, which get no token here.
            "code_challenge_methods_supported": ["S256"],
        }

    def capability(self) -> dict[str, Any]:
        """What the CapabilityStatement says about security: where tokens are given."""
        system = "http://terminology.hl7.org/CodeSystem/restful-security-service"
        return {
            "service": [{"coding": [{"system": system, "code": "SMART-on-FHIR"}]}],
            "extension": [
                {
                    "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                    "extension": [{"url": "token", "valueUri": self.settings.token_endpoint}],
                }
            ],
        }

    async def issue(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The response to a request for an access token. Raises Refused, or ApiError."""
        if form.get("grant_type") != GRANT:
            raise Refused("unsupported_grant_type", f"grant_type: expected {GRANT}")
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise Refused("invalid_client", f"client_assertion_type: expected {ASSERTION_TYPE}")
        client = await self._authenticate(form.get("client_assertion", ""))
        if form.get("client_id", client.name) != client.name:
            raise Refused("invalid_client", "client_id: expected the client that signed")
        asked = form.get("scope", "").split()
        if not asked:
            raise Refused("invalid_scope", "scope: expected at least one scope, found none")
        granted = [s for s in dict.fromkeys(asked) if scopes.is_scope(s) and scopes.allows(client.scopes, s)]
        if not granted:
            raise Refused("invalid_scope", f"scope: expected some of {' '.join(client.scopes)}")
        token = _PREFIX.decode() + secrets.token_urlsafe(32)
        lifetime_s = self.settings.token_lifetime_s
        expires = time.time() + lifetime_s
        await self.log.in_writer(lambda: self.log.records.keep_token(token, client.name, granted, expires))
        scope = " ".join(granted)
        return {"access_token": token, "token_type": "bearer", "expires_in": lifetime_s, "scope": scope}

    async def _authenticate(self, assertion: str) -> Client:
        """The client that signed. Its signature counts once."""
        header, claims = _unverified(assertion)
        name = claims.get("iss")
        entry = self.clients.registered(name) if isinstance(name, str) else None
        if entry is None or entry.jwks is None:
            raise Refused("invalid_client", "iss: expected the name of a registered client")
        if header.get("jku", entry.jwks) != entry.jwks:
            raise Refused("invalid_client", "jku: expected the registered address of the keys")
        skew_s = self.settings.clock_skew_s
        claims = await _verified(
            assertion,
            header,
            self.keys,
            entry.jwks,
            CLIENT_ALGORITHMS,
            JWTClaimsRegistry(
                leeway=skew_s,
                iss={"essential": True, "value": entry.name},
                sub={"essential": True, "value": entry.name},
                aud={"essential": True, "value": self.settings.token_endpoint},
                exp={"essential": True},
                jti={"essential": True},
            ),
        )
        if claims["exp"] > time.time() + MAX_ASSERTION_S + skew_s:
            raise Refused("invalid_client", f"exp: expected at most {MAX_ASSERTION_S} s from now")
        once, until = json.dumps([entry.name, claims["jti"]]), float(claims["exp"]) + skew_s + 1
        if not await self.log.in_writer(lambda: self.log.records.use_once(once, until)):
            raise Refused("invalid_client", "jti: expected a new one, found one that was used")
        return Client(entry.name, entry.scopes)

    async def client_of(self, token: bytes) -> Client | None:
        """The client of an access token; None if it is not valid now. Raises ApiError without a database."""
        if self.settings.issuer is not None:
            try:
                return await self._client_of_issuer(token, self.settings.issuer)
            except Refused:
                return None
        if not token.startswith(_PREFIX) or len(token) > MAX_TOKEN_CHARS:
            return None
        text = token.decode(errors="replace")
        found = await self.log.in_reader(lambda: self.log.records.token(text))
        entry = self.clients.registered(found[0]) if found else None
        if found is None or entry is None:
            return None
        # A scope that was taken from the client since counts no more.
        return Client(entry.name, tuple(s for s in found[1] if scopes.allows(entry.scopes, s)))

    async def _client_of_issuer(self, token: bytes, issuer: IssuerSettings) -> Client:
        text = token.decode(errors="replace")
        header, _ = _unverified(text)
        claims = await _verified(
            text,
            header,
            self.keys,
            issuer.jwks,
            ISSUER_ALGORITHMS,
            JWTClaimsRegistry(
                leeway=self.settings.clock_skew_s,
                iss={"essential": True, "value": issuer.issuer},
                aud={"essential": True, "value": issuer.audience},
                exp={"essential": True},
            ),
        )
        name, scope = claims.get(issuer.client_claim), claims.get("scope", "")
        if not isinstance(name, str) or not name or not isinstance(scope, str):
            raise Refused("invalid_client", f"{issuer.client_claim}, scope: expected text")
        granted = tuple(s for s in scope.split() if scopes.is_scope(s))
        # No name in the file of keys has an @: an issuer cannot name somebody else's client.
        return Client(f"{name[:128]}@{issuer.issuer}"[:255], granted)


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT whose signature nobody has checked."""
    if not token or len(token) > MAX_TOKEN_CHARS:
        raise Refused(
            "invalid_client", f"client_assertion: expected a JWT of at most {MAX_TOKEN_CHARS} characters"
        )
    try:
        found = jws.extract_compact(token.encode())
        claims = json.loads(found.payload)
        header = dict(found.headers())
    except (JoseError, ValueError, RecursionError):
        raise Refused(
            "invalid_client", "client_assertion: expected a signed JWT, found another text"
        ) from None
    if not isinstance(claims, dict):
        raise Refused("invalid_client", "client_assertion: expected claims, found none")
    return header, claims


async def _verified(
    token: str,
    header: Mapping[str, Any],
    keys: KeySets,
    source: str,
    algorithms: Collection[str],
    expected: JWTClaimsRegistry,
) -> dict[str, Any]:
    """The claims of a JWT: its signature is right, and they are as expected. Raises Refused.

    The key is found by what was registered. The header only chooses among these keys; it cannot bring its own.
    """
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise Refused("invalid_client", f"alg: expected {' or '.join(algorithms)}")
    if not isinstance(kid, str) or not kid:
        raise Refused("invalid_client", "kid: expected the name of a key, found none")
    key = await keys.find(source, kid, algorithm)
    try:
        claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        expected.validate(claims)
    except JoseError as error:
        raise Refused("invalid_client", f"client_assertion: {error.error}: {error.description}") from None
    except (ValueError, TypeError, RecursionError):
        raise Refused("invalid_client", "client_assertion: expected a signed JWT") from None
    return claims


def _fits(key: RSAKey | ECKey, algorithm: str) -> bool:
    """Whether a key is for this algorithm. A key for RS384 never checks an HS384 signature, and so on."""
    fields = key.as_dict(private=False)
    if key.key_type != _KEY_OF.get(algorithm[:2]) or fields.get("alg", algorithm) != algorithm:
        return False
    if fields.get("use", "sig") != "sig" or "verify" not in fields.get("key_ops", ["verify"]):
        return False
    if isinstance(key, RSAKey):
        return key.raw_value.key_size >= _MIN_RSA_BITS
    return fields["crv"] == _CURVE_OF[algorithm]


def _parse(content: bytes) -> list[RSAKey | ECKey]:
    """The RSA and EC keys of a JWKS. Raises ValueError for another text. Keys of other kinds are left out."""
    try:
        values: Sequence[Any] = json.loads(content)["keys"]
        keys = [JWKRegistry.import_key(value) for value in values if value.get("kty") in _KEY_OF.values()]
    except (JoseError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("expected a JWKS") from None
    return [key for key in keys if isinstance(key, RSAKey | ECKey)]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from https to a place that anybody can write to."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetch(source: str) -> bytes:
    """A file, or the answer of an https URI; http is for this machine only. Raises OSError or ValueError."""
    parts = urlsplit(source)
    if "://" not in source:
        content = Path(source).expanduser().read_bytes()
    else:
        if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
            raise ValueError("expected a file or an https URI")
        with urllib.request.build_opener(_NoRedirect).open(source, timeout=_FETCH_TIMEOUT_S) as response:
            content = response.read(_MAX_JWKS_BYTES + 1)
    if len(content) > _MAX_JWKS_BYTES:
        raise ValueError(f"expected at most {_MAX_JWKS_BYTES} bytes")
    return content
