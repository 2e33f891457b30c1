"""What a registry's answers mean in AOS' error taxonomy.

Status codes and error bodies are those of the OCI distribution specification 1.1 ("Error Codes"). Texts of a
registry are hostile: they are shortened and stripped of control characters before they enter a message.
"""

from __future__ import annotations

import json
import ssl

from aos.errors import (
    AosError,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

__all__ = ["from_status", "from_transport", "is_certificate_problem", "login_hint"]


def login_hint(registry: str) -> str:
    return f"log in with `podman login {registry}` or `docker login {registry}`; AOS reads what they store"


def from_status(status: int, body: bytes, what: str, registry: str) -> AosError:
    """The error for an answer that is not a success; `what` says what was asked, as in `pull x/y:1`."""
    said = _texts(body)
    message = f"{what}: {registry} answered {status}" + (f" ({said})" if said else "")
    if status == 401:
        return Unauthenticated(
            message, code="registry-unauthenticated", hint=login_hint(registry), registry=registry
        )
    if status == 403:
        return PermissionDenied(
            message,
            code="registry-denied",
            hint="this account may not do that here; " + login_hint(registry),
            registry=registry,
        )
    if status == 404:
        return NotFound(
            f"{what}: {registry} has no such repository, tag or digest" + (f" ({said})" if said else ""),
            code="package-not-found",
            hint="check the spelling; some registries say this when they want a login, too",
            registry=registry,
        )
    if status == 429:
        return ResourceExhausted(
            message,
            code="registry-rate-limited",
            hint="wait, or log in for a higher limit",
            registry=registry,
        )
    if status >= 500:
        return Unavailable(message, code="registry-unavailable", hint="try again later", registry=registry)
    return FailedPrecondition(message, code="registry-refused", registry=registry, status=status)


def from_transport(error: Exception, what: str, registry: str) -> AosError:
    """The error for a connection that failed or broke."""
    if is_certificate_problem(error):
        return FailedPrecondition(
            f"{what}: the certificate of {registry} is not trusted: {_cause(error)}",
            code="registry-tls",
            hint="name the CA that signed it with SSL_CERT_FILE",
            registry=registry,
        )
    hint = "check the name and the network, then try again"
    if isinstance(_root(error), ssl.SSLError):
        hint = "if it does not speak TLS, and you trust the network, use --plain-http"
    return Unavailable(
        f"{what}: cannot talk to {registry}: {_cause(error)}",
        code="registry-unavailable",
        hint=hint,
        registry=registry,
    )


def is_certificate_problem(error: BaseException) -> bool:
    return isinstance(_root(error), ssl.SSLCertVerificationError)


def _root(error: BaseException) -> BaseException:
    """The deepest cause: the HTTP stack wraps the socket's error twice."""
    for _ in range(8):
        inner = error.__cause__ or error.__context__
        if inner is None or isinstance(error, ssl.SSLError):
            break
        error = inner
    return error


def _cause(error: Exception) -> str:
    return _plain(str(error) or str(_root(error)) or type(error).__name__)


def _texts(body: bytes) -> str:
    try:
        errors = json.loads(body)["errors"]
        said = "; ".join(f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors[:3])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return _plain(said)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:300]
