"""What `push`, `pull`, `verify` and `packages` share: the exchange, and a line on stderr for each blob."""

from __future__ import annotations

import os
import sys

from aos.cli._output import size
from aos.compose import packages
from aos.config import load_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments
    from aos.oci.descriptor import Descriptor
    from aos.registry.exchange import Exchange

__all__ = ["exchange"]


def exchange(args: Arguments) -> Exchange:
    silent = args.get("quiet") or args.get("output") == "json"
    return packages.exchange(
        load_config(os.environ),
        os.environ,
        plain_http=bool(args.get("plain-http")),
        report=None if silent else _report,
    )


def _report(descriptor: Descriptor, how: str) -> None:
    print(f"{descriptor.digest[7:19]} {size(descriptor.size):>8}  {how}", file=sys.stderr)
