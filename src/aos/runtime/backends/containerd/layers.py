"""Our layers in containerd: its content store, unpacked by its snapshotter, kept by an image of its own.

    lease       while layers come in: nothing of them is collected, and a crash leaves nothing after an hour
    content     the blobs that are missing; gone again once they are unpacked, as nothing refers to them then
    snapshots   one for each layer, under its chain id, as containerd's own clients name them
    image       `aos.openos.dev/layers:<chain id>`: what keeps the snapshots from then on

An image goes when our own content store has lost its topmost layer; containerd collects what it kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from aos.errors import AlreadyExists, DataLoss, NotFound
from aos.oci.digest import Digest, digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aos.content.store import ContentStore
    from aos.oci.layer import Layer
    from aos.runtime.backends.containerd.connection import Connection
    from aos.runtime.backends.containerd.settings import ContainerdConfig

__all__ = ["LABEL_INSTALLATION", "Layers", "chain_id"]

LABEL_INSTALLATION = "aos.openos.dev/installation"
_LABEL_LAYER = "aos.openos.dev/layer"
"""Of an image: the digest of its topmost layer."""

_LEASE_SECONDS = 3600
_PIECE = 1 << 20
_UNPACK_SECONDS = 1800.0


def chain_id(layers: Sequence[Layer]) -> str:
    """The name of layers that lie on each other (OCI image specification, config.md, "Layer ChainID")."""
    chain = str(layers[0].diff_id)
    for layer in layers[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer.diff_id}".encode()).hexdigest()
    return chain


class Layers:
    def __init__(self, config: ContainerdConfig, connection: Connection, content: ContentStore) -> None:
        self._config = config
        self._connection = connection
        self._content = content
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, layers: Sequence[Layer]) -> str:
        """Bring in and unpack what is missing; the name of the topmost snapshot.

        DataLoss `diff-id-mismatch` and whatever our content store and containerd raise."""
        top = chain_id(layers)
        async with self._locks.setdefault(top, asyncio.Lock()):
            if not await self._unpacked(top):
                await self._bring(layers, top)
        return top

    async def _bring(self, layers: Sequence[Layer], top: str) -> None:
        from aos.runtime.backends.containerd._api.services import leases_pb2

        leases = await self._connection.service("Leases")
        lease = f"aos-layers-{os.urandom(6).hex()}"
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LEASE_SECONDS))
        labels = {"containerd.io/gc.expire": expiry, LABEL_INSTALLATION: self._config.installation}
        await leases.call("Create", leases_pb2.CreateRequest(id=lease, labels=labels))
        try:
            parent = ""
            for number, layer in enumerate(layers):
                chain = chain_id(layers[: number + 1])
                if not await self._unpacked(chain, lease):
                    await self._send_layer(layer, lease)
                    await self._unpack(layer, parent, chain, lease)
                parent = chain
            await self._name(layers, top, lease)
        finally:
            await asyncio.shield(leases.call("Delete", leases_pb2.DeleteRequest(id=lease)))
        await self._forget_lost()

    async def _unpacked(self, chain: str, lease: str = "") -> bool:
        from aos.runtime.backends.containerd._api.services import leases_pb2, snapshots_pb2

        snapshots = await self._connection.service("Snapshots")
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self._config.snapshotter, key=chain)
        try:
            await snapshots.call("Stat", request)
            if lease:
                kept = leases_pb2.Resource(id=chain, type=f"snapshots/{self._config.snapshotter}")
                leases = await self._connection.service("Leases")
                await leases.call("AddResource", leases_pb2.AddResourceRequest(id=lease, resource=kept))
                await snapshots.call("Stat", request)
        except NotFound:
            return False
        return True

    async def _unpack(self, layer: Layer, parent: str, chain: str, lease: str) -> None:
        from aos.runtime.backends.containerd._api.services import diff_pb2, snapshots_pb2

        snapshots = await self._connection.service("Snapshots")
        diff = await self._connection.service("Diff")
        snapshotter, key = self._config.snapshotter, f"aos-unpack-{os.urandom(6).hex()} {chain}"
        labels = {"containerd.io/snapshot.ref": chain}  # what remote snapshotters go by
        made: snapshots_pb2.PrepareSnapshotResponse = await snapshots.call(
            "Prepare",
            snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=snapshotter, key=key, parent=parent, labels=labels
            ),
            lease=lease,
        )
        try:
            applied: diff_pb2.ApplyResponse = await diff.call(
                "Apply",
                diff_pb2.ApplyRequest(diff=_descriptor(layer), mounts=made.mounts),
                seconds=_UNPACK_SECONDS,
                lease=lease,
            )
            if applied.applied.digest != layer.diff_id:
                raise DataLoss(
                    f"layer {layer.digest} does not unpack to {layer.diff_id}",
                    code="diff-id-mismatch",
                    hint="remove the package and pull or build it again",
                    digest=layer.digest,
                )
            await snapshots.call(
                "Commit",
                snapshots_pb2.CommitSnapshotRequest(snapshotter=snapshotter, name=chain, key=key),
                lease=lease,
            )
        except BaseException as error:
            remove = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
            await asyncio.shield(snapshots.call("Remove", remove))
            if not isinstance(error, AlreadyExists):  # somebody else unpacked it meanwhile
                raise

    async def _name(self, layers: Sequence[Layer], top: str, lease: str) -> None:
        """Make the image: a manifest that refers to a config, which refers to the snapshot."""
        from aos.runtime.backends.containerd._api.services import images_pb2
        from aos.runtime.backends.containerd._api.types.descriptor_pb2 import Descriptor

        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        config = _json(
            {
                "architecture": machine,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _described("application/vnd.oci.image.config.v1+json", config),
                "layers": [
                    {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                    for layer in layers
                ],
            }
        )
        snapshot = {f"containerd.io/gc.ref.snapshot.{self._config.snapshotter}": top}
        await self._send_bytes(config, snapshot, lease)
        await self._send_bytes(manifest, {"containerd.io/gc.ref.content.config": digest_of(config)}, lease)
        image = images_pb2.Image(
            name=f"aos.openos.dev/layers:{top.removeprefix('sha256:')}",
            labels={
                LABEL_INSTALLATION: self._config.installation,
                _LABEL_LAYER: layers[-1].digest,
            },
            target=Descriptor(
                media_type="application/vnd.oci.image.manifest.v1+json",
                digest=digest_of(manifest),
                size=len(manifest),
            ),
        )
        images = await self._connection.service("Images")
        try:
            await images.call("Create", images_pb2.CreateImageRequest(image=image))
        except AlreadyExists:
            await images.call("Update", images_pb2.UpdateImageRequest(image=image))

    async def _forget_lost(self) -> None:
        """Delete the images whose layers our content store does not have any more."""
        from aos.runtime.backends.containerd._api.services import images_pb2

        images = await self._connection.service("Images")
        ours = f'labels."{LABEL_INSTALLATION}"=={self._config.installation}'
        listed: images_pb2.ListImagesResponse = await images.call(
            "List", images_pb2.ListImagesRequest(filters=[ours])
        )
        for image in listed.images:
            if not self._content.blobs.exists(Digest(image.labels[_LABEL_LAYER])):
                await images.call("Delete", images_pb2.DeleteImageRequest(name=image.name))

    async def _send_layer(self, layer: Layer, lease: str) -> None:
        """Verified by our store as it is read, and by containerd as it arrives."""

        async def pieces() -> AsyncIterator[bytes]:
            with self._content.blobs.open(layer.digest) as stored:
                while piece := await asyncio.to_thread(stored.read, _PIECE):
                    yield piece

        await self._send(pieces(), layer.digest, layer.size, {}, lease)

    async def _send_bytes(self, data: bytes, labels: dict[str, str], lease: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield data

        await self._send(pieces(), digest_of(data), len(data), labels, lease)

    async def _send(
        self, pieces: AsyncIterator[bytes], digest: str, size: int, labels: dict[str, str], lease: str
    ) -> None:
        from aos.runtime.backends.containerd._api.services import content_pb2

        content = await self._connection.service("Content")
        labels = {LABEL_INSTALLATION: self._config.installation, **labels}
        common: dict[str, Any] = {
            "ref": f"aos-{os.urandom(6).hex()}-{digest}",
            "total": size,
            "expected": digest,
        }

        async def requests() -> AsyncIterator[content_pb2.WriteContentRequest]:
            offset = 0
            async for piece in pieces:
                yield content_pb2.WriteContentRequest(action="WRITE", offset=offset, data=piece, **common)
                offset += len(piece)
            yield content_pb2.WriteContentRequest(action="COMMIT", offset=offset, labels=labels, **common)

        try:
            stream = content.stub.Write(requests(), metadata=self._connection.metadata(lease))
            async for _ in stream:
                pass
        except Exception as error:
            translated = self._connection.translate(error)
            if not isinstance(translated, AlreadyExists):
                raise translated from error
            await self._relabel(digest, labels, lease)

    async def _relabel(self, digest: str, labels: dict[str, str], lease: str) -> None:
        """What is there already is kept, too, and refers to what it has to."""
        from google.protobuf.field_mask_pb2 import FieldMask

        from aos.runtime.backends.containerd._api.services import content_pb2, leases_pb2

        leases = await self._connection.service("Leases")
        kept = leases_pb2.Resource(id=digest, type="content")
        await leases.call("AddResource", leases_pb2.AddResourceRequest(id=lease, resource=kept))
        content = await self._connection.service("Content")
        info = content_pb2.Info(digest=digest, labels=labels)
        mask = FieldMask(paths=[f"labels.{label}" for label in labels])
        await content.call("Update", content_pb2.UpdateRequest(info=info, update_mask=mask))


def _descriptor(layer: Layer) -> Any:
    from aos.runtime.backends.containerd._api.types.descriptor_pb2 import Descriptor

    return Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)


def _described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _as_digest(text: str) -> Digest:

    return Digest(text)
