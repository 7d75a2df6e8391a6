"""The page that a run leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as command
from benchmarks.machine import Others
from benchmarks.measuring import WrongText
from benchmarks.report import page
from benchmarks.results import Outcome, Table, Verdict
from benchmarks.stage import Stage


def test_a_page_says_what_was_missed() -> None:
    """Targets come first, those that were missed stand out, and what wasn't measured is no success."""
    verdicts = [Verdict("a", "b", "1", True), Verdict("c", "d", "2", False), Verdict("e", "f", "-", None)]
    text = page("today", ["A machine"], [Outcome(verdicts=verdicts)], "", quick=False)
    assert "| a | b | 1 | yes |\n| c | d | 2 | **no** |\n| e | f | - | – |" in text
    assert "quick run" not in text
    assert "quick run" in page("today", [], [], "", quick=True)


def test_a_column_for_remarks_is_there_when_there_are_any() -> None:
    """A last column without a name is left out when all its cells are empty."""
    with_remark = Table("T", ["who", ""], [["a", ""], ["b", "late"]])
    without = Table("T", ["who", ""], [["a", ""]])
    assert "| b | late |" in page("", [], [Outcome([with_remark])], "", quick=False)
    assert "| a |\n" in page("", [], [Outcome([without])], "", quick=False)


def test_wrong_text_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written all the same, says which shape it was, and the exit status is 1."""

    def wrong(_: Stage) -> Outcome:
        raise WrongText("viewer 0 lacks a token")

    monkeypatch.setattr(command, "SHAPES", {"wide": wrong})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "wide", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as exited:
        command.main()
    assert exited.value.code == 1
    text = (tmp_path / "latest.md").read_text()
    assert "| wide: FAILED | everybody has what was reported | viewer 0 lacks a token | **no** |" in text
    assert len(list(tmp_path.glob("20*.md"))) == 1


def test_other_work_is_noticed() -> None:
    """The page says how busy others kept the machine."""
    assert "others used" in str(Others())
