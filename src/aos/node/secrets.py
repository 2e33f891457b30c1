"""Secrets of agents: values that whoever started them gave, kept for their next processes, and nowhere but here.

`<state>/secrets/<key>/<name>`: the transient state of an installation, memory on an ordinary host (/run). The journal
holds the key. After a reboot the values are gone, and an agent that needs them has to be started anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["AgentSecrets"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LARGEST = 1 << 20
"""Bytes: what holds it is memory."""


class AgentSecrets:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, values: Mapping[str, bytes]) -> str:
        """The key of what was put; InvalidArgument `secret-invalid`."""
        for name, value in values.items():
            if not _NAME.fullmatch(name) or len(value) > _LARGEST:
                raise InvalidArgument(
                    f"{name!r:.60} is not a secret's name, or holds more than 1 MiB",
                    code="secret-invalid",
                    hint="letters, digits, '_', '.' and '-'; at most 128",
                )
        key = os.urandom(8).hex()
        directory = self._directory / key
        directory.mkdir(parents=True, mode=0o700)
        for name, value in values.items():
            with (directory / name).open("xb") as file:
                file.write(value)
        return key

    def get(self, key: str, name: str) -> bytes:
        """FailedPrecondition `secret-lost`."""
        try:
            return (self._directory / key / name).read_bytes()
        except OSError as error:
            raise FailedPrecondition(
                f"the secret {name!r} is not there any more: the host was restarted since it was given",
                code="secret-lost",
                hint="remove the agent and start it again with its secrets",
                secret=name,
            ) from error

    def values(self, key: str) -> list[bytes]:
        """What there is."""
        try:
            return [path.read_bytes() for path in sorted((self._directory / key).iterdir())]
        except OSError:
            return []

    def forget(self, key: str) -> None:
        with contextlib.suppress(OSError):
            shutil.rmtree(self._directory / key)
