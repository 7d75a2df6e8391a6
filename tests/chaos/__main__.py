"""``python -m tests.chaos [--seed N] [--short] [NAME…]``: play the long form of all scenarios, or of those
named (parts of names will do), and print the table. Exits with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.chaos.kit.scenario import Scenario, all_scenarios, play
from tests.chaos.kit.tally import Tally, table
from tests.tools import find_tool

_BAR = 30
_TESTS = Path(__file__).parents[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", help="only the scenarios with these words in their names")
    parser.add_argument("--seed", type=int, help="repeat a run that was printed with this seed")
    parser.add_argument("--short", action="store_true", help="the short forms, as in `make test`")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    wanted = [
        one for one in all_scenarios() if not options.names or any(n in one.name for n in options.names)
    ]
    if options.short:
        wanted = [one for one in wanted if one.short]
    print(f"seed {seed}", flush=True)
    tallies, broken = [], False
    for number, one in enumerate(wanted):
        tally = Tally(one.fault)
        tallies.append(tally)
        missing = [name for name in one.needs if find_tool(name) is None]
        if missing:
            tally.notes.append(f"not played, because this machine lacks {', '.join(missing)}")
            continue
        problem = asyncio.run(_play(one, tally, f"{number + 1}/{len(wanted)}", not options.short, seed))
        broken |= tally.failed or bool(problem)
        if problem:
            tally.notes.append(f"FAILED: {problem.splitlines()[0]}")
            print(f"{one.name} failed:\n{problem}", file=sys.stderr, flush=True)
    print(table(tallies))
    raise SystemExit(1 if broken else 0)


async def _play(one: Scenario, tally: Tally, place: str, long: bool, seed: int) -> str:
    """Play one scenario beside the progress bar; what went wrong, or nothing."""
    bar = asyncio.create_task(_progress(one, tally, place), name="progress bar")
    try:
        with tempfile.TemporaryDirectory(prefix="bridge-chaos-") as folder:
            await play(one, tally, long=long, seed=seed, folder=Path(folder))
    except Exception as error:
        return f"{type(error).__name__}: {error}\n{_line(error)}"
    finally:
        bar.cancel()
        with suppress(asyncio.CancelledError):
            await bar
        if sys.stderr.isatty():
            print(file=sys.stderr, flush=True)
    return ""


def _line(error: BaseException) -> str:
    """The line of the scenario that failed, and the last one of ours below it."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if str(_TESTS) in frame.filename]
    chosen = [frame for frame in ours if "scenarios" in frame.filename][-1:] + ours[-1:]
    lines = [f"  {Path(one.filename).relative_to(_TESTS)}:{one.lineno}: {one.line}" for one in chosen]
    return "\n".join(dict.fromkeys(lines))


async def _progress(one: Scenario, tally: Tally, place: str) -> None:
    """Redraw a line on stderr, four times a second on a terminal."""
    begun, terminal = time.monotonic(), sys.stderr.isatty()
    while True:
        filled = "#" * round(_BAR * tally.progress)
        line = (
            f"{place:>6} [{filled:<{_BAR}}] {time.monotonic() - begun:5.0f} s"
            f"  {tally.injected:6,} faults  {one.number}. {one.fault}"
        )
        if terminal or tally.progress == 0:
            print(
                f"\r{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True
            )
        await asyncio.sleep(0.25 if terminal else 3600)


if __name__ == "__main__":
    main()
