"""What else is in a sandbox: of the host, in memory, of other layers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from aos.errors import AosError
from aos.runtime.spec import Mount
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


@needs("files")
class Mounts(Cases):
    async def mounted(self, kit: Kit, script: str, *mounts: Mount, **process: str) -> list[str]:
        """What the script says, line by line."""
        spec = replace(self.spec(kit, "sh", script, **process), mounts=mounts)
        return (await self.output(kit, spec)).splitlines()

    @case
    async def test_a_directory_of_the_host(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("from the host\n")
        out = await self.mounted(kit, "cat /in/file; echo new > /in/new", Mount("bind", "/in", tmp_path))
        assert out == ["from the host"]
        assert (tmp_path / "new").read_text() == "new\n"

    @case
    async def test_a_directory_is_shared_while_both_live(self, kit: Kit, tmp_path: Path) -> None:
        runtime = kit.make()
        spec = replace(
            self.spec(kit, "sh", "until test -e /in/go; do sleep 0.01; done; cat /in/go > /in/answer"),
            mounts=(Mount("bind", "/in", tmp_path),),
        )
        async with self.running(runtime, spec) as id:
            await asyncio.sleep(0.05)
            (tmp_path / "written").write_text("word")
            (tmp_path / "written").rename(tmp_path / "go")
            assert (await runtime.wait(id)).code == 0
        assert (tmp_path / "answer").read_text() == "word"

    @case
    async def test_a_directory_that_is_read_only(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("word\n")
        script = (
            "cat /in/file; touch /in/x 2>/dev/null || echo refused; echo x >> /in/file || echo refused;"
            "mount -o remount,rw /in 2>/dev/null || echo refused"
        )
        spec = replace(
            self.spec(kit, "sh", f"({script}) 2>/dev/null"),
            mounts=(Mount("bind", "/in", tmp_path, read_only=True),),
        )
        assert await self.output(kit, spec) == "word\nrefused\nrefused\nrefused\n"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @case
    async def test_a_file_of_the_host(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("one\n")
        (tmp_path / "other").write_text("")
        out = await self.mounted(
            kit,
            "cat /etc/one; echo two > /opt/new/two",
            Mount("bind", "/etc/one", tmp_path / "file", read_only=True),
            Mount("bind", "/opt/new/two", tmp_path / "other"),
        )
        assert out == ["one"]
        assert (tmp_path / "other").read_text() == "two\n"

    @case
    async def test_mounts_inside_of_mounts_in_the_order_given(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "word").write_text("inner\n")
        out = await self.mounted(
            kit,
            "cat /a/b/word; touch /a/mine && ls /a",
            Mount("tmpfs", "/a"),
            Mount("bind", "/a/b", tmp_path, read_only=True),
        )
        assert out == ["inner", "b", "mine"]

    @case
    async def test_a_tmpfs_is_as_large_as_was_asked(self, kit: Kit) -> None:
        out = await self.mounted(
            kit,
            "df -k /scratch | tail -1 | awk '{print $2}'; head -c 2000000 /dev/zero 2>/dev/null > /scratch/x || echo full;"
            "test $(wc -c < /scratch/x) -le 1048576 && echo bounded",
            Mount("tmpfs", "/scratch", size=1 << 20),
        )
        assert [out[0], out[-1]] == ["1024", "bounded"]

    @case
    async def test_a_tmpfs_is_empty_and_gone_afterwards(self, kit: Kit) -> None:
        for _ in range(2):
            out = await self.mounted(kit, "ls /bin; echo x > /bin/x; ls /scratch", Mount("tmpfs", "/scratch"))
            assert "x" not in out

    @case
    async def test_a_file_in_memory_is_the_process_s_alone(self, kit: Kit) -> None:
        mount = Mount("file", "/run/secrets/key", data=b"word-in-memory", mode=0o400)
        assert "word-in-memory" not in repr(mount)
        out = await self.mounted(
            kit,
            "stat -c '%u:%g %a' /run/secrets/key; cat /run/secrets/key; echo;"
            "(echo x >> /run/secrets/key) 2>/dev/null || echo refused",
            mount,
            user="1000:1001",
        )
        assert out == ["1000:1001 400", "word-in-memory", "refused"]

    @case
    async def test_files_in_memory_of_any_content(self, kit: Kit) -> None:
        script = "wc -c < /empty; wc -c < /large; stat -c %a /large; cat /opt/zero | tr '\\0' z"
        out = await self.mounted(
            kit,
            script,
            Mount("file", "/empty"),
            Mount("file", "/large", data=bytes(300_000), mode=0o444),
            Mount("file", "/opt/zero", data=b"a\0b\n"),
        )
        assert [line.strip() for line in out] == ["0", "300000", "444", "azb"]

    @case
    async def test_layers_beside_the_root(self, kit: Kit) -> None:
        out = await self.mounted(
            kit,
            "/all/bin/sh -c 'echo whole'; /mnt/sh -c 'echo part'; touch /all/x 2>/dev/null || echo refused",
            Mount("layers", "/all", layers=kit.layers),
            Mount("layers", "/mnt/sh", layers=kit.layers, path="/bin/sh"),
        )
        assert out == ["whole", "part", "refused"]

    @case
    async def test_layers_that_lack_what_is_asked_of_them(self, kit: Kit) -> None:
        runtime = kit.make()
        for mount in (Mount("layers", "/x", layers=kit.layers, path="no"), Mount("layers", "/x")):
            with pytest.raises(AosError) as refused:
                await runtime.create(self.id(), replace(self.spec(kit, "sleep"), mounts=(mount,)))
            assert refused.value.code in ("mount-source-missing", "spec-invalid")
        assert await runtime.list() == []

    @case
    async def test_a_relative_source_is_refused(
        self, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(AosError) as refused:
            await kit.make().create(
                self.id(), replace(self.spec(kit, "sleep"), mounts=(Mount("bind", "/x", Path("here")),))
            )
        assert refused.value.code == "mount-source-missing"

    @case
    async def test_links_in_a_target_stay_inside(self, kit: Kit, tmp_path: Path) -> None:
        """A hostile image makes its links lead out; what is mounted there lands in its own root."""
        upper, outside, given = tmp_path / "upper", tmp_path / "outside", tmp_path / "given"
        for directory in (upper, given):
            directory.mkdir(mode=0o755)
        (upper / "up").symlink_to("../../../../../../.." + str(outside))
        (given / "word").write_text("inside\n")
        spec = replace(
            self.spec(kit, "sh", "cat /up/a/word"),
            mounts=(Mount("bind", "/up/a", given),),
        )
        spec = replace(spec, rootfs=replace(spec.rootfs, upper=upper))
        assert await self.output(kit, spec) == "inside\n"
        assert not outside.exists()

    @case
    async def test_mounts_inside_of_a_directory_of_the_host(self, kit: Kit, tmp_path: Path) -> None:
        volume, other = tmp_path / "volume", tmp_path / "other"
        for directory in (volume, volume / "there", other):
            directory.mkdir()
        (other / "word").write_text("other\n")
        (volume / "there/hidden").write_text("")
        script = (
            "cat /v/there/word /v/new/deep/word /v/key; echo; ls /v/scratch; ls /v/all/bin/sh;"
            "for at in there new/deep scratch; do (echo x > /v/$at/x) 2>/dev/null || echo $at; done;"
            "echo mine > /v/mine; ls /v"
        )
        out = await self.mounted(
            kit,
            script,
            Mount("bind", "/v", volume),
            Mount("bind", "/v/there", other, read_only=True),
            Mount("bind", "/v/new/deep", other),
            Mount("tmpfs", "/v/scratch", size=1 << 20),
            Mount("file", "/v/key", data=b"key", mode=0o444),
            Mount("layers", "/v/all", layers=kit.layers),
        )
        listed = ["all", "key", "mine", "new", "scratch", "there"]
        assert out == ["other", "other", "key", "/v/all/bin/sh", "there", *listed]
        assert sorted(path.name for path in other.iterdir()) == ["word", "x"]
        assert [path.name for path in (volume / "there").iterdir()] == ["hidden"]
        assert list((volume / "scratch").iterdir()) == []

    @case
    async def test_a_writable_mount_inside_of_one_that_is_read_only(self, kit: Kit, tmp_path: Path) -> None:
        volume, other = tmp_path / "volume", tmp_path / "other"
        for directory in (volume / "in", other):
            directory.mkdir(parents=True)
        out = await self.mounted(
            kit,
            "(echo x > /v/x) 2>/dev/null || echo refused; echo word > /v/in/x; cat /v/in/x",
            Mount("bind", "/v", volume, read_only=True),
            Mount("bind", "/v/in", other),
        )
        assert out == ["refused", "word"], out
        assert (other / "x").read_text() == "word\n"
        assert not (volume / "x").exists()

    @pytest.mark.parametrize("kind", ["bind", "file", "tmpfs"])
    @case
    async def test_a_link_in_a_mount_leads_no_other_mount_away(
        self, kit: Kit, tmp_path: Path, kind: Literal["bind", "file", "tmpfs"]
    ) -> None:
        """An agent leaves a link in its volume; the next sandbox mounts something at it."""
        volume, other = tmp_path / "volume", tmp_path / "other"
        volume.mkdir()
        other.mkdir()
        (other / "version").write_text("forged\n")
        more = {"source": other} if kind == "bind" else {"data": b"forged"} if kind == "file" else {}
        places = ["/proc/version"] if kind == "file" else ["/proc", "../../../../../../proc", "/"]
        for place in places:
            (volume / "link").unlink(missing_ok=True)
            (volume / "link").symlink_to(place)
            spec = replace(
                self.spec(kit, "sh", "cat /proc/version; ls -d /bin"),
                mounts=(Mount("bind", "/volume", volume), Mount(kind, "/volume/link", **more)),
            )
            try:
                said = await self.output(kit, spec)
            except AosError:
                continue
            assert "Linux" in said and "forged" not in said and "/bin" in said

    @case
    async def test_a_link_that_comes_and_goes_leads_no_other_mount_away(
        self, kit: Kit, tmp_path: Path
    ) -> None:
        """… and another agent with the same volume changes it while the sandbox is made."""
        volume, other = tmp_path / "volume", tmp_path / "other"
        (volume / "there").mkdir(parents=True)
        (volume / "link").symlink_to("/proc")
        other.mkdir()
        (other / "version").write_text("forged\n")
        spec = replace(
            self.spec(kit, "sh", "cat /proc/version"),
            mounts=(Mount("bind", "/volume", volume), Mount("bind", "/volume/there", other)),
        )
        done = threading.Event()

        def change() -> None:
            while not done.is_set():
                _exchange(volume / "there", volume / "link")

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            try:
                for _ in range(8):
                    try:
                        said = await self.output(kit, spec)
                    except AosError:
                        continue
                    assert "Linux" in said and "forged" not in said
            finally:
                done.set()
            changing.result()


def _exchange(one: Path, other: Path) -> None:
    """Swap two names at once, or not while something is mounted at one; source: renameat2(2), linux/fs.h."""
    here, exchange = -100, 2
    renamed = ctypes.CDLL(None, use_errno=True).renameat2(
        here, os.fsencode(one), here, os.fsencode(other), exchange
    )
    assert renamed == 0 or ctypes.get_errno() == errno.EBUSY, os.strerror(ctypes.get_errno())
