"""Headers are byte for byte what the standard library's tarfile writes, whatever has to be said."""

from __future__ import annotations

import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from aos.build.layers.tar import BLOCK, header

_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8") | st.just("\udcff"), max_size=260)
_NUMBER = st.integers(0, 2**32)


@given(
    st.sampled_from([b"0", b"1", b"2", b"3", b"5"]),
    _TEXT.filter(bool),
    _TEXT,
    st.integers(0, 0o7777),
    _NUMBER,
    _NUMBER,
    st.integers(0, 2**43),
    st.integers(-(2**40), 2**40),
    st.dictionaries(st.sampled_from(["user.a", "user.é", "security.capability"]), _TEXT),
)
@example(b"0", "n" * 99 + "é", "", 0o644, 8**7, 0, 8**11, -1, {})
@example(b"2", "\udcff", "n" * 101, 0o777, 0, 0, 0, 0, {"user.a": "x" * 990})
def test_headers_are_those_of_tarfile(
    kind: bytes,
    name: str,
    link: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    records: dict[str, str],
) -> None:
    device = (8, 1) if kind == b"3" else None
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.uid, entry.gid = kind, link, mode, uid, gid
    entry.size, entry.mtime, entry.pax_headers = size, mtime, records
    entry.devmajor, entry.devminor = device or (0, 0)
    written = header(
        kind,
        entry.get_info()["name"],  # type: ignore[arg-type]  # a directory's ends in '/'
        mode=mode,
        uid=uid,
        gid=gid,
        size=size,
        mtime=mtime,
        link=link,
        device=device,
        records=records.items(),
    )
    assert written == entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    assert len(written) % BLOCK == 0
