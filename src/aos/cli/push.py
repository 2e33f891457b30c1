"""`aos push`: send a package to a registry, or write it as an OCI layout."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Send a package to a registry, or write it as a layout (oci:DIR[:TAG], oci-archive:FILE[:TAG])",
    "REFERENCE DESTINATION?",
    options=(
        Option("plain-http", help="Speak HTTP without TLS; loopback may always"),
        Option("quiet", "q", help="Print only the digest"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    from aos.cli._transfer import exchange

    package, where = exchange(args).push(args["reference"], args["destination"])
    if wants_json(args):
        print_json({"destination": where, "digest": package.manifest_digest})
    elif args["quiet"]:
        print(package.manifest_digest)
    else:
        print(f"{where}: {package.manifest_digest}")
    return 0
