"""Commands as Redis reads them."""

from __future__ import annotations

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from bridge.store.packing import pack, pack_plainly

parts = st.binary(max_size=20) | st.text(max_size=20) | st.integers()


@given(parts=st.lists(parts, min_size=1, max_size=20).map(tuple))
def test_both_ways_to_pack_give_the_same(parts: tuple[bytes | str | int, ...]) -> None:
    """With hiredis and without, and any reader of the protocol reads the parts that were packed."""
    reader = hiredis.Reader()
    reader.feed(pack_plainly(parts))
    assert reader.gets() == [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    assert pack(parts) == pack_plainly(parts)
