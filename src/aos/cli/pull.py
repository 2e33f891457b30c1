"""`aos pull`: fetch a package from a registry, or from an OCI layout on disk, into the local registry."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Fetch a package from a registry, or import a layout (oci:DIR[:TAG], oci-archive:FILE[:TAG])",
    "REFERENCE",
    options=(
        Option("plain-http", help="Speak HTTP without TLS; loopback may always"),
        Option("quiet", "q", help="Print only the digest"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    from aos.cli._transfer import exchange

    entries = exchange(args).pull(args["reference"])
    if wants_json(args):
        print_json([{"reference": entry.reference, "digest": entry.digest} for entry in entries])
    for entry in [] if wants_json(args) else entries:
        print(entry.digest if args["quiet"] else f"{entry.reference}: {entry.digest}")
    return 0
