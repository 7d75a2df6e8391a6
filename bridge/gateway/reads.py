"""Which reads of a channel's log are wanted, under way and done: numbers only, so that one can wait for one.

Reads are numbered 1, 2, 3 … and never two at a time. Who wants one gets the number of a read that begins
after that moment; however many want one meanwhile, it is the same. One that failed is wanted again unasked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Reads(ABC):
    """The reads of one log, to be inherited by what holds it."""

    def __init__(self) -> None:
        self.reading = False
        self.reads_begun = 0
        self.reads_done = 0
        self._read_wanted = 0
        self._whole_wanted = 0

    @property
    def loaded(self) -> bool:
        """Whether the log was ever read."""
        return self.reads_done > 0

    @property
    def read_due(self) -> bool:
        """Whether a read is wanted and can begin."""
        return self._read_wanted > self.reads_begun and not self.reading

    def want_read(self, *, whole: bool = False) -> int:
        """Ask for a read that begins after now; returns its number, to be compared with `reads_done`.

        whole: from the first event on, to compare or to have back what was forgotten.
        """
        if self._read_wanted <= self.reads_begun:
            self._read_wanted = self.reads_begun + 1
            if not self.reading:
                self._ask_for_read()
        if whole:
            self._whole_wanted = self._read_wanted
        return self._read_wanted

    @abstractmethod
    def _ask_for_read(self) -> None:
        """Called when a read is wanted and can begin. It must only note it."""

    def _begin(self) -> bool:
        """A read begins now. Whether it must be of the whole log."""
        self.reading = True
        self.reads_begun += 1
        return self._whole_wanted == self.reads_begun

    def _done(self) -> None:
        """The read that was begun is there; another may be due."""
        self.reading = False
        self.reads_done = self.reads_begun
        if self.read_due:
            self._ask_for_read()

    def _failed(self) -> None:
        """The read that was begun came to nothing: another, of as much, is due."""
        self.reading = False
        self._read_wanted = self.reads_begun + 1
        if self._whole_wanted == self.reads_begun:
            self._whole_wanted = self._read_wanted

    @property
    def _whole_read_awaited(self) -> bool:
        """Whether a read of the whole log is wanted or under way already."""
        return self._whole_wanted > self.reads_done
