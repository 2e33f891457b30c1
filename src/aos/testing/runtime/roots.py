"""The root file system: a sandbox's own, or as read-only as was asked, or what a build commits."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from aos.runtime.spec import Mount
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from pathlib import Path

    from aos.runtime.spec import AgentSpec
    from aos.testing.runtime.kit import Kit


@needs("files")
class Roots(Cases):
    def script(self, kit: Kit, script: str, **process: str) -> AgentSpec:
        return self.spec(kit, "sh", script, **process)

    @case
    async def test_root_can_be_written_to(self, kit: Kit) -> None:
        script = "echo x > /file; mkdir /made; ln -s file /link; chmod 600 /file; cat /link; stat -c %a /file"
        assert await self.output(kit, self.script(kit, script)) == "x\n600\n"

    @case
    async def test_what_one_writes_no_other_sees(self, kit: Kit) -> None:
        runtime = kit.make()
        async with (
            self.running(runtime, self.spec(kit, "sleep")) as one,
            self.running(runtime, self.spec(kit, "sleep")) as two,
        ):
            await self.execute(runtime, one, self.process(kit, "sh", "echo x > /file; rm /bin/cat"))
            seen = await self.execute(runtime, one, self.process(kit, "sh", "test -e /file; echo $?"))
            unseen = await self.execute(
                runtime, two, self.process(kit, "sh", "test -e /file; echo $?; test -e /bin/cat; echo $?")
            )
            assert (seen.out, unseen.out) == (b"0\n", b"1\n0\n")
        assert await self.output(kit, self.script(kit, "test -e /file; echo $?")) == "1\n"

    @case
    async def test_a_read_only_root(self, kit: Kit) -> None:
        spec = self.script(
            kit, "touch /file 2>/dev/null || echo refused; echo fine > /scratch/x && cat /scratch/x"
        )
        spec = replace(
            spec, rootfs=replace(spec.rootfs, read_only=True), mounts=(Mount("tmpfs", "/scratch"),)
        )
        assert await self.output(kit, spec) == "refused\nfine\n"

    @case
    async def test_an_upper_directory_that_was_given_is_kept(self, kit: Kit, tmp_path: Path) -> None:
        upper = tmp_path / "upper"
        upper.mkdir(mode=0o755)
        spec = self.script(kit, "mkdir -p /new && echo kept > /new/file && rm /bin/cat")
        await self.output(kit, replace(spec, rootfs=replace(spec.rootfs, upper=upper)))
        assert (upper / "new/file").read_text() == "kept\n"
        assert (upper / "bin/cat").is_char_device()  # a whiteout
        spec = self.script(kit, "read x < /new/file; echo $x; test -e /bin/cat || echo gone")
        assert (
            await self.output(kit, replace(spec, rootfs=replace(spec.rootfs, upper=upper))) == "kept\ngone\n"
        )

    @case
    async def test_the_usual_devices_are_there_and_no_others(self, kit: Kit) -> None:
        script = (
            "echo x > /dev/null; head -c 3 /dev/zero | wc -c | tr -d ' '; head -c 3 /dev/urandom | wc -c | tr -d ' ';"
            "for it in kmsg mem sda vda loop0 kvm; do test -e /dev/$it && echo $it; done; true"
        )
        assert await self.output(kit, self.script(kit, script)) == "3\n3\n"

    @case
    async def test_there_is_shared_memory(self, kit: Kit) -> None:
        assert await self.output(kit, self.script(kit, "echo x > /dev/shm/x && cat /dev/shm/x")) == "x\n"

    @case
    async def test_processes_of_the_host_are_not_seen(self, kit: Kit) -> None:
        found = await self.output(kit, self.script(kit, "cd /proc; ls -d [0-9]* | wc -l"))
        assert int(found) < 10

    @needs("copy")
    @case
    async def test_the_host_sees_the_root_as_its_processes_do(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "shared").write_text("shared")
        runtime = kit.make()
        spec = replace(
            self.script(kit, "echo own > /file; echo ready; exec sleep 1000"),
            mounts=(Mount("bind", "/in", tmp_path),),
        )
        async with self.running(runtime, spec) as id:
            await self.logged(runtime, id, "ready")
            root = await runtime.root(id)
            try:
                for path, wanted in (("file", b"own\n"), ("in/shared", b"shared")):
                    descriptor = os.open(path, os.O_RDONLY, dir_fd=root)
                    with os.fdopen(descriptor, "rb") as file:
                        assert file.read() == wanted
            finally:
                os.close(root)
