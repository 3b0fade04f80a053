"""Sources of concepts and judges that look at pictures as the network under study sees them."""

from typing import Any, Protocol, TypeVar, runtime_checkable

from neuronx.types import Target

Looking = TypeVar("Looking")


@runtime_checkable
class SeesAlike(Protocol):
    """A source of concepts, or a judge, that can look at pictures as a network sees them."""

    def seen_by(self, target: Target) -> Any:
        """The same source or judge, looking at what the network sees."""
        ...


def as_seen_by(target: Target, looking: Looking) -> Looking:
    """A source of concepts or a judge as it sees what a network sees; itself where it looks in a way of its own."""
    return looking.seen_by(target) if isinstance(looking, SeesAlike) else looking
