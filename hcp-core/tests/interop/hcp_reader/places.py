"""The sessions that one address has accepted, and who goes when there is no place for one more: section 4."""

from dataclasses import dataclass, field

from .session import Session

PLACES = 1_024
SETTLED = 5.0


@dataclass
class Places:
    """As many sessions as may be."""

    count: int = PLACES
    taken: list[tuple[float, Session]] = field(default_factory=list[tuple[float, Session]])
    """Since when each has its place; the oldest first."""

    def enter(self, now: float, session: Session) -> Session | None:
        """Takes a session in whose PROOF has come. Gives who is to be closed with `busy`, which may be this one."""
        self.taken = [(since, other) for since, other in self.taken if other.closed is None]
        gone = None
        if len(self.taken) >= self.count:
            idle = (other for since, other in self.taken if not other.streams and now - since >= SETTLED)
            gone = next(idle, session)
        self.taken = [(since, other) for since, other in [*self.taken, (now, session)] if other is not gone]
        return gone
