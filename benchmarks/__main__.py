"""``python -m benchmarks [SHAPE…] [--quick] [--out FOLDER]``: measure all shapes, or those named, and write a
page of Markdown and a plot. Exits with 1 when somebody got another text than was reported; a target that is
missed is no error. It takes some minutes, and the machine for itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.machine import Others, describe
from benchmarks.measuring import WrongText
from benchmarks.report import page
from benchmarks.results import Bar, Outcome, Verdict
from benchmarks.shapes import growth, idle, join, latency, status, storm, typical, wide, worker
from benchmarks.stage import Stage, staged

SHAPES: Final[Mapping[str, Callable[[Stage], Outcome]]] = MappingProxyType(
    {
        "wide": wide.run,
        "typical": typical.run,
        "latency": latency.run,
        "idle": idle.run,
        "join": join.run,
        "status": status.run,
        "storm": storm.run,
        "worker": worker.run,
        "growth": growth.run,
    }
)
_RESULTS: Final = Path(__file__).with_name("results")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small crowds and short times: only for a look")
    parser.add_argument(
        "--out", type=Path, default=_RESULTS, metavar="FOLDER", help="where the page is written"
    )
    options = parser.parse_args()
    unknown = set(options.shapes) - set(SHAPES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    if sys.platform != "linux":
        parser.error("the benchmarks need Linux: epoll, pinned processes, and what /proc says of them")
    wanted = {name: run for name, run in SHAPES.items() if not options.shapes or name in options.shapes}
    when = time.strftime("%Y-%m-%d %H:%M")
    others = Others()
    with staged(quick=options.quick) as stage:
        about = describe(stage)
        outcomes = [_run(stage, name, f"{n}/{len(wanted)}") for n, name in enumerate(wanted, 1)]
    file = _write(options.out, when, [*about, str(others)], outcomes, quick=options.quick)
    print(f"written to {file}")
    broken = [one for outcome in outcomes for one in outcome.verdicts if one.what.endswith(_FAILED)]
    raise SystemExit(1 if broken else 0)


_FAILED: Final = ": FAILED"


def _run(stage: Stage, name: str, place: str) -> Outcome:
    """One shape. What it got wrong stands among the results; the others go on."""
    stage.say(f"{place} {name}")
    try:
        return SHAPES[name](stage)
    except WrongText as error:
        stage.say(f"  FAILED: {error}")
        return Outcome(
            verdicts=[Verdict(name + _FAILED, "everybody has what was reported", str(error), False)]
        )


def _write(folder: Path, when: str, about: list[str], outcomes: list[Outcome], *, quick: bool) -> Path:
    """The page and its plot under the run's date, and once more as the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = when.replace(" ", "-").replace(":", "")
    bars = [bar for outcome in outcomes for bar in outcome.bars]
    drawn = _draw(bars, when, folder / f"{stem}.svg")
    for name in (stem, "latest"):
        plot = f"{name}.svg" if drawn else ""
        text = page(when, about, outcomes, plot, quick=quick)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    if drawn:
        shutil.copyfile(folder / f"{stem}.svg", folder / "latest.svg")
    return folder / f"{stem}.md"


def _draw(bars: list[Bar], when: str, file: Path) -> bool:
    """Whether there is a plot: it takes something to draw, and matplotlib."""
    if not bars or importlib.util.find_spec("matplotlib") is None:
        return False
    from benchmarks.plot import draw

    draw(bars, f"What one token costs per viewer, {when}", file)
    return True


if __name__ == "__main__":
    main()
