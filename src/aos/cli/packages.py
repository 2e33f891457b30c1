"""`aos packages`: the local registry: what is here, what is in it, where its bytes are, and forgetting names."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import ago, print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERBS"]


def _ls(args: Arguments) -> int:
    import os
    import time

    from aos.compose.packages import content_store, local_registry
    from aos.config import load_config

    config = load_config(os.environ)
    entries = local_registry(config, content_store(config)).list()
    if wants_json(args):
        print_json(
            [
                {
                    "reference": entry.reference,
                    "name": entry.name,
                    "version": entry.version,
                    "digest": entry.digest,
                    "size": entry.size,
                    "created_at": entry.created_at,
                }
                for entry in entries
            ]
        )
    elif args["quiet"]:
        for digest in dict.fromkeys(entry.digest for entry in entries):
            print(digest)
    else:
        now = time.time()
        table(
            ("REFERENCE", "VERSION", "DIGEST", "SIZE", "CREATED"),
            [
                (e.reference, e.version or "-", e.digest[7:19], size(e.size), ago(now - e.created_at))
                for e in entries
            ],
        )
    return 0


def _inspect(args: Arguments) -> int:
    from aos.cli._transfer import exchange

    facts = exchange(args).inspect(args["reference"])
    if wants_json(args):
        print_json(facts)
        return 0
    config, layers = facts["config"], facts["layers"]
    rows = [
        ("reference", " ".join(facts["references"]) or "-"),
        ("digest", facts["digest"]),
        ("name", facts["name"] or "-"),
        ("version", facts["version"] or "-"),
        ("description", facts["description"] or "-"),
        ("platform", facts["platform"]),
        ("size", f"{size(facts['size'])} in {len(layers)} layers"),
        ("command", " ".join([*config["entrypoint"], *config["cmd"]]) or "-"),
        ("directory", config["working_dir"] or "/"),
        ("user", config["user"] or "root"),
    ]
    rows += [("environment", entry) for entry in config["env"]]
    rows += [
        ("layer", f"{one['digest'][7:19]} {size(one['size']):>8}  {one['created_by']}") for one in layers
    ]
    table(("FIELD", "VALUE"), rows)
    return 0


def _rm(args: Arguments) -> int:
    import os

    from aos.cli._each import each
    from aos.compose.packages import content_store, local_registry
    from aos.config import load_config

    config = load_config(os.environ)
    registry = local_registry(config, content_store(config))

    def remove(reference: str) -> None:
        for entry in registry.remove(reference):
            print(entry.reference)

    return each("packages rm", args["reference"], remove)


def _du(args: Arguments) -> int:
    from aos.cli._usage import show_package, show_registry

    return show_package(args) if args["reference"] else show_registry(args)


VERBS = {
    "ls": (
        Verb(
            "List the packages that have a name here",
            "",
            (Option("quiet", "q", help="Print only digests"), OUTPUT),
        ),
        _ls,
    ),
    "inspect": (Verb("Show what a package is and what is in it", "REFERENCE", (OUTPUT,)), _inspect),
    "du": (
        Verb(
            "Show where the bytes are: layers that packages share, or what is large in one package",
            "REFERENCE?",
            (Option("count", "n", "COUNT", "How many of each kind to show", default="10"), OUTPUT),
        ),
        _du,
    ),
    "rm": (
        Verb("Forget references, or every reference to a digest; `aos prune` frees the space", "REFERENCE+"),
        _rm,
    ),
}
