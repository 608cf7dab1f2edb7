"""When each stage begins and how long it goes on, so that all of them end within the time given."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from nightly.stages import Stage

ROOM = 0.8  # of the time, that what a stage takes at least may fill
TAIL = 0.07  # of the time, left for what runs a little longer than it was told to


def with_room(stages: Sequence[Stage], seconds: float) -> list[Stage]:
    """Those that fit, the first of the list before the others; one alone always does."""
    room: list[Stage] = []
    for stage in stages:
        if len(stages) == 1 or sum(each.least for each in room) + stage.least <= ROOM * seconds:
            room.append(stage)
    return room


@dataclass
class Schedule:
    """Gives `jobs` workers their stages: first those of a length of their own, the longest before
    the others, then those that go on as long as they may. What the first took too long is taken
    from what is left for the last, so the whole ends by `end` (of time.monotonic())."""

    stages: Sequence[Stage]
    end: float
    jobs: int
    begin: float = field(default_factory=time.monotonic)
    pending: list[Stage] = field(init=False)
    running: dict[str, float] = field(default_factory=dict)  # name -> when it should end
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.pending = sorted(self.stages, key=lambda stage: (stage.share, -stage.least)
                              if not stage.share else (1e-9, -stage.share))

    def next(self, now: float) -> tuple[Stage, float] | None:
        """The next stage, and its seconds of what goes on as long as it may."""
        with self.lock:
            if not self.pending:
                return None
            seconds = self.seconds(now)
            stage = self.pending.pop(0)
            self.running[stage.name] = now + stage.least + seconds
            return stage, seconds

    def done(self, stage: Stage) -> None:
        with self.lock:
            del self.running[stage.name]

    def seconds(self, now: float) -> float:
        """Of the first that is pending: its share of what the workers have left."""
        stage = self.pending[0]
        if not stage.share:
            return 0.0
        end = self.end - TAIL * (self.end - self.begin)
        left = (self.jobs - len(self.running)) * max(0.0, end - now)
        left += sum(max(0.0, end - max(now, then)) for then in self.running.values())
        left -= sum(each.least for each in self.pending)
        left *= stage.share / sum(each.share for each in self.pending)
        return max(1.0, min(left, end - now - stage.least))
