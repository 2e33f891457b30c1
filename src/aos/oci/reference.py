"""References, in the grammar of the OCI distribution specification and of `distribution/reference`.

    reference  := [registry "/"] repository [":" tag] ["@" digest]

A first component is a registry only if it holds a "." or a ":" or is "localhost", as in
github.com/distribution/reference ("normalize.go", "splitDockerDomain"). Nothing is assumed silently: without a
registry a reference means the local store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aos.errors import InvalidArgument
from aos.oci.digest import Digest, parse_digest

__all__ = ["Reference", "parse_reference"]

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_NAME_LIMIT = 255
"""Characters of registry and repository together (distribution/reference, NameTotalLengthMax)."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """`registry` is empty for the local store; `tag` is empty only beside a digest."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Parse; a reference with neither tag nor digest has the tag `latest`.

    Raises InvalidArgument (`reference-invalid`) that says which part is wrong.
    """
    rest, at, digest_text = text.partition("@")
    try:
        digest = parse_digest(digest_text) if at else None
    except InvalidArgument as error:
        raise _invalid(text, f"{digest_text!r} is not a digest", error.hint or "") from error
    first, slash, path = rest.partition("/")
    registry = ""
    if slash and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
        registry, rest = first, path
        if not _REGISTRY.fullmatch(registry):
            raise _invalid(
                text, f"{registry!r} is not a registry", "a registry is a host name with an optional port"
            )
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(
            text,
            f"{tag!r} is not a tag",
            "a tag has at most 128 of: letters, digits, '_', '.', '-'; not '.' or '-' first",
        )
    if not _REPOSITORY.fullmatch(repository):
        hint = "a repository has lower-case letters and digits, separated by '/', '.', '_', '__' or '-'"
        raise _invalid(text, f"{repository!r} is not a repository", hint)
    if len(registry) + len(repository) + bool(registry) > _NAME_LIMIT:
        raise _invalid(text, f"its name is longer than {_NAME_LIMIT} characters", "use a shorter name")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def _invalid(text: str, why: str, hint: str) -> InvalidArgument:
    return InvalidArgument(
        f"{text!r:.300} is not a reference: {why}", code="reference-invalid", hint=hint, reference=text[:300]
    )
