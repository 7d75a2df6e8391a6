"""Streams over a real socket."""

from __future__ import annotations

from tests.gateway.running import Running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer


def test_live(gateway: Running, writer: Writer) -> None:
    """Events arrive."""
    with watch(gateway) as viewer:
        viewer.head()
        writer.open()
        writer.text("Hel")
        viewer.text_is("Hel")
        writer.text("lo")
        writer.end()
        viewer.to_end()
    assert viewer.view.as_dict() == writer.view().as_dict()
