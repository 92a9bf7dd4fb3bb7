"""What a person does to the files of a workspace: bursts of saved files in spells of work, within a working day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random

HOUR_S = 3600.0
# Spells of work at the keyboard, and what interrupts them: talks, reading, meetings.
_AT_WORK_S, _AWAY_S = 25 * 60.0, 12 * 60.0
# In a spell: from one burst of saved files to the next, and from one file of a burst to the next.
_BETWEEN_BURSTS_S, _BETWEEN_SAVES_S = 170.0, 3.0
_LAST_OF_BURST = 0.55
# So many bursts delete something, and after so many a person waits for the sync (`flush`).
_DELETIONS, _AWAITED = 0.06, 0.02
# After so many spells the laptop is closed.
_CLOSED = 0.3
# The share of people who work, by the hour of their day; else nobody does.
_PRESENT = {8: 0.3, 9: 0.8, 10: 1.0, 11: 1.0, 12: 0.5, 13: 0.7, 14: 1.0, 15: 1.0, 16: 0.9, 17: 0.5, 18: 0.2}
# The hours by which people's days are later than the first ones', and their shares.
_ZONES = ((0, 0.6), (1, 0.25), (2, 0.15))


class Act(Enum):
    """What a person does."""

    EDIT = "saves a file"
    DELETE = "deletes a file"
    FLUSH = "runs `syncd flush` and waits for its end"
    CLOSE = "closes the laptop, which sleeps"
    OPEN = "opens it again"


@dataclass(frozen=True)
class Person:
    """A person with a time zone, as a random number decides."""

    zone_s: float

    @classmethod
    def of(cls, random: Random) -> Person:
        """Return a person of a random zone."""
        hours, shares = zip(*_ZONES, strict=True)
        return cls(random.choices(hours, shares)[0] * HOUR_S)

    def works(self, time_s: float, random: Random) -> bool:
        """True if the person works at that second of the company's day, by chance."""
        hour = int((time_s - self.zone_s) // HOUR_S) % 24
        return random.random() < _PRESENT.get(hour, 0.0)

    def acts(self, random: Random, start_s: float) -> Iterator[tuple[float, Act]]:
        """Yield what the person does from that second of the company's day on, without end."""
        time_s = start_s
        spell_s = (
            time_s + random.random() * _AT_WORK_S if random.random() < _AT_WORK_S / (_AT_WORK_S + _AWAY_S) else 0.0
        )
        while True:
            if not self.works(time_s, random):
                time_s += random.expovariate(1 / _AWAY_S)
                continue
            while time_s < spell_s:
                time_s += random.expovariate(1 / _BETWEEN_BURSTS_S)
                while True:
                    yield time_s, Act.DELETE if random.random() < _DELETIONS else Act.EDIT
                    if random.random() < _LAST_OF_BURST:
                        break
                    time_s += random.expovariate(1 / _BETWEEN_SAVES_S)
                if random.random() < _AWAITED:
                    yield time_s, Act.FLUSH
            away_s = random.expovariate(1 / _AWAY_S)
            if spell_s and random.random() < _CLOSED:
                # It is not closed while the last sync is under way.
                yield time_s + min(60.0, away_s / 2), Act.CLOSE
                yield time_s + away_s, Act.OPEN
            time_s += away_s
            spell_s = time_s + random.expovariate(1 / _AT_WORK_S)
