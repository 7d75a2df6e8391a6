"""Measures how long Python takes to import modules of its standard library, each in a fresh interpreter.

    python measure.py

It is a program like any other: it prints as it goes, needs nothing but Python, and knows nothing of the
bridge. The demonstration runs it to have a real command whose output comes at a real pace.
"""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

_NAMES = """
    argparse ast asyncio base64 bisect calendar cmd codecs collections concurrent.futures configparser
    contextlib copy csv dataclasses datetime decimal difflib dis email.message fractions ftplib functools
    getpass glob graphlib gzip hashlib heapq hmac html.parser http.client http.server imaplib
    importlib.metadata inspect ipaddress itertools json linecache locale logging logging.config mailbox
    mimetypes multiprocessing netrc numbers optparse pathlib pdb pickle platform plistlib pprint pydoc queue
    random sched secrets selectors shelve shlex shutil smtplib socketserver statistics string struct
    subprocess tarfile tempfile textwrap threading timeit tokenize tomllib traceback typing unittest
    urllib.request uuid venv wave weakref xml.dom.minidom xml.sax xmlrpc.client zipfile zoneinfo
"""
MODULES = _NAMES.split()
ROUNDS = 7


def main() -> None:
    """Print one line per module, then the slowest ones."""
    print(
        f"Importing {len(MODULES)} modules, each in a fresh interpreter, the best of {ROUNDS}.\n", flush=True
    )
    bare = best("pass")
    times = {}
    for number, module in enumerate(MODULES, 1):
        print(f"{number:2}/{len(MODULES)} {module:<19}", end="", flush=True)
        times[module] = max(best(f"import {module}") - bare, 0.0)
        print(f"{times[module] * 1000:6.1f} ms", flush=True)
    slowest = sorted(times, key=times.__getitem__, reverse=True)[:5]
    print(f"\nPython alone takes {bare * 1000:.1f} ms. The slowest imports:", ", ".join(slowest), flush=True)


def best(code: str) -> float:
    """The fastest of a few runs of a new interpreter with this code, in seconds."""
    return min(once(code) for _ in range(ROUNDS))


def once(code: str) -> float:
    """One run. A module that isn't on this machine costs what it costs to find that out."""
    begun = perf_counter()
    subprocess.run(
        [sys.executable, "-I", "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return perf_counter() - begun


if __name__ == "__main__":
    main()
