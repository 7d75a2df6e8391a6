"""The results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Outcome, Table, Verdict

_MET = {True: "yes", False: "**no**", None: "–"}


def page(when: str, about: Sequence[str], outcomes: Sequence[Outcome], plot: str, *, quick: bool) -> str:
    """The whole page; `plot` is the name of the picture's file, or empty."""
    lines = [f"# Benchmarks, {when}", ""]
    if quick:
        lines += ["**A quick run: small crowds, short times. Good for a look, not for a comparison.**", ""]
    lines += [f"- {line}" for line in about]
    lines += ["", "How each figure is measured, and how to repeat it: `docs/performance.md`.", ""]
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    if verdicts:
        lines += ["## Targets", "", *_table(_verdicts(verdicts))]
    if plot:
        lines += [f"![CPU per token and viewer, by sender]({plot})", ""]
    for outcome in outcomes:
        for table in outcome.tables:
            lines += [f"## {table.title}", "", *_table(table)]
            lines += [line for note in table.notes for line in (note, "")]
    return "\n".join(lines).rstrip() + "\n"


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    rows = [[one.what, one.target, one.measured, _MET[one.met]] for one in verdicts]
    return Table("", ["what", "target", "measured", "met"], rows)


def _table(table: Table) -> list[str]:
    """A table and the empty line after it. The first column holds names, the others mostly figures."""
    # A last column without a name is for remarks; where there are none it is left out.
    columns, rows = list(table.columns), [list(row) for row in table.rows]
    if not columns[-1] and not any(row[-1] for row in rows):
        columns.pop()
        for row in rows:
            row.pop()
    head = "| " + " | ".join(columns) + " |"
    rule = "| --- |" + " ---: |" * (len(columns) - 1)
    return [head, rule, *("| " + " | ".join(row) + " |" for row in rows), ""]
