"""Makes packages for tests: real tar layers, a real store."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.oci.descriptor import MEDIA_LAYER_GZIP
from aos.oci.digest import digest_of
from aos.oci.image import ImageSpec
from aos.oci.layer import Layer
from aos.package import BuiltLayer, Package, assemble

if TYPE_CHECKING:
    from aos.content.protocol import Blobs

DEFINITION: dict[str, Any] = {
    "metadata": {"name": "hello", "version": "1.2.0", "description": "Says hello"},
    "entrypoint": {"command": ["/bin/hello"], "args": ["world"]},
}


def built_layer(blobs: Blobs, files: dict[str, bytes], created_by: str = "copy . /") -> BuiltLayer:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    stored = blobs.put(gzip.compress(tar.getvalue(), mtime=0))
    layer = Layer(stored.digest, digest_of(tar.getvalue()), stored.size, MEDIA_LAYER_GZIP)
    return BuiltLayer(layer, created_by, "key-" + created_by, "")


def image(**fields: Any) -> ImageSpec:
    return ImageSpec(
        **{
            "architecture": "amd64",
            "env": ("PATH=/bin", "A=b"),
            "entrypoint": ("/bin/hello",),
            "cmd": ("world",),
            "working_dir": "/srv",
            "user": "1000:1000",
            "stop_signal": "SIGINT",
            **fields,
        }
    )


def make_package(blobs: Blobs, **definition: Any) -> Package:
    layers = [built_layer(blobs, {"a": b"one"}), built_layer(blobs, {"b": b"two" * 1000}, "run: make")]
    return assemble(blobs, definition_json=DEFINITION | definition, image=image(), layers=layers)


def busybox_package(blobs: Blobs, *args: str) -> Package:
    """One static busybox under /bin with the name sh; runs `sh -c` with the arguments."""
    found = shutil.which("busybox")
    assert found
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        binary = tarfile.TarInfo("bin/busybox")
        data = Path(found).read_bytes()
        binary.size, binary.mode = len(data), 0o755
        archive.addfile(binary, io.BytesIO(data))
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(shell)
    stored = blobs.put(gzip.compress(tar.getvalue(), 1, mtime=0))
    layer = Layer(stored.digest, digest_of(tar.getvalue()), stored.size, MEDIA_LAYER_GZIP)
    return assemble(
        blobs,
        definition_json=DEFINITION,
        image=image(entrypoint=("/bin/sh", "-c"), cmd=args),
        layers=[BuiltLayer(layer, "copy busybox /bin", "key", "")],
    )
