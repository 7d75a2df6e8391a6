"""`SECURITY.md` promises what tests show; so those have to be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
PROOFS = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", TEXT)))


@pytest.mark.parametrize("proof", PROOFS)
def test_what_is_promised_is_tested(proof: str) -> None:
    """Each file that is named exists, and has the test that is named."""
    file, _, test = proof.partition("::")
    assert f"def {test or 'test_'}" in (ROOT / file).read_text()


def test_every_attack_is_named() -> None:
    """No file of attacks is left out of the promises."""
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "hardening").glob("test_*.py")}
    assert files <= {proof.partition("::")[0] for proof in PROOFS}


def test_settings_and_links_that_it_names_exist() -> None:
    """What it tells people to set, or to read, is there."""
    settings = (ROOT / "docs" / "settings.md").read_text()
    for name in re.findall(r"`(BRIDGE_[A-Z_]+)`", TEXT):
        assert f"`{name}`" in settings, name
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT):
        assert f"`BRIDGE_{name.upper()}`" in settings, name
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / link).exists(), link
