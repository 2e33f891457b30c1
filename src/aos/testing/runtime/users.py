"""Whom a process runs as: names from the sandbox's own files, or numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from pathlib import Path

    from aos.testing.runtime.kit import Kit

_PASSWD = "root:x:0:0:root:/:/bin/sh\nworker:x:1500:1600::/:/bin/sh\nnumber:x:1700:1800::/:/bin/sh\n"
_GROUP = "root:x:0:\nworkers:x:1600:\naudio:x:29:worker,other\nvideo:x:44:worker\nothers:x:1900:\n"


@needs("files")
class Users(Cases):
    @pytest.mark.parametrize(
        ("user", "ids", "groups"),
        [
            ("", "0:0", set[int]()),
            ("0", "0:0", set[int]()),
            ("root", "0:0", set[int]()),
            ("worker", "1500:1600", {29, 44}),
            ("1500", "1500:1600", {29, 44}),
            ("worker:others", "1500:1900", set[int]()),
            ("worker:77", "1500:77", set[int]()),
            ("1234", "1234:0", set[int]()),
            ("1234:4321", "1234:4321", set[int]()),
            ("1234:others", "1234:1900", set[int]()),
        ],
    )
    @case
    async def test_user_and_groups(
        self, kit: Kit, tmp_path: Path, user: str, ids: str, groups: set[int]
    ) -> None:
        upper = tmp_path / "upper"
        (upper / "etc").mkdir(parents=True)
        (upper / "etc/passwd").write_text(_PASSWD)
        (upper / "etc/group").write_text(_GROUP)
        for path in (upper, upper / "etc", *(upper / "etc").iterdir()):
            path.chmod(0o755)
        spec = self.spec(kit, "sh", "grep -E '^(Uid|Gid|Groups):' /proc/self/status", user=user)
        out = await self.output(kit, replace(spec, rootfs=replace(spec.rootfs, upper=upper)))
        fields = {line.split(":")[0]: [int(id) for id in line.split()[1:]] for line in out.splitlines()}
        uid, gid = (int(id) for id in ids.split(":"))
        assert set(fields["Uid"]) == {uid}
        assert set(fields["Gid"]) == {gid}
        assert set(fields["Groups"]) - {gid} == groups

    @case
    async def test_a_user_does_not_own_the_root(self, kit: Kit) -> None:
        spec = self.spec(kit, "sh", "touch /file 2>/dev/null || echo refused", user="1000:1000")
        assert await self.output(kit, spec) == "refused\n"

    @case
    async def test_a_user_has_no_capabilities(self, kit: Kit) -> None:
        spec = self.spec(kit, "sh", "grep -E '^Cap(Eff|Prm|Amb):' /proc/self/status", user="65534")
        values = [line.split()[1] for line in (await self.output(kit, spec)).splitlines()]
        assert values and {int(value, 16) for value in values} == {0}
