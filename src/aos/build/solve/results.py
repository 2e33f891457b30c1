"""What is known of a plan's vertices while it is solved: the states they left, and how they came by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.plan.graph import EMPTY
from aos.build.progress.events import Cached, Warned
from aos.build.solve.outcome import Outcome
from aos.errors import DataLoss
from aos.oci.digest import Digest

if TYPE_CHECKING:
    from aos.build.cache.lookup import Lookup
    from aos.build.explain.records import Status
    from aos.build.plan.graph import Plan, State, Vertex
    from aos.build.plan.keys import Component
    from aos.build.progress.events import Progress
    from aos.oci.layer import Layer

__all__ = ["Results"]


class Results:
    def __init__(self, plan: Plan, states: dict[int, State], lookup: Lookup, progress: Progress) -> None:
        self.plan = plan
        self.states = states
        self.lookup = lookup
        self.outcomes: dict[int, Outcome] = {}
        self._progress = progress

    @property
    def complete(self) -> bool:
        return len(self.states) == len(self.plan.vertices)

    @property
    def final(self) -> State:
        """What becomes the package, once it is known."""
        return EMPTY if self.plan.final is None else self.states[self.plan.final]

    def below(self, vertex: Vertex) -> State:
        return EMPTY if vertex.below is None else self.states[vertex.below]

    def reads(self, vertex: Vertex) -> tuple[State, ...]:
        return tuple(EMPTY if read is None else self.states[read] for read in vertex.reads)

    def components(self, vertex: Vertex) -> tuple[Component, ...]:
        """Of its key; none while something that it stands on or reads has no result."""
        ready = all(parent in self.states for parent in vertex.parents)
        return self.lookup.components(vertex) if ready else ()

    def set_base(self, vertex: Vertex, state: State, size: int) -> None:
        self.states[vertex.index] = state
        self.outcomes[vertex.index] = Outcome("base", 0)
        self._progress.emit(Cached(vertex.index, size=size))

    def find(self, vertex: Vertex, status: Status = "hit") -> State | None:
        """Its state as an earlier build left it, or (`shared`) one at this time; None: it must be executed."""
        found = self.lookup.find(vertex)
        if found is None:
            return None
        self.states[vertex.index] = found.state
        self.outcomes[vertex.index] = Outcome(status, found.seconds)
        self._progress.emit(Cached(vertex.index, found.seconds, found.size))
        return found.state

    def keep(self, vertex: Vertex, layer: Layer | None, seconds: float) -> State:
        """Remember what its execution has made, here and for later builds."""
        state = self.lookup.keep(vertex, layer, seconds)
        self.outcomes[vertex.index] = Outcome("executed", seconds)
        return state

    def walk(self) -> None:
        """Go through the plan as far as earlier builds have been."""
        for vertex in self.plan.vertices:
            known = vertex.index in self.states or self.lookup.forced(vertex)
            if not known and all(parent in self.states for parent in vertex.parents):
                self.find(vertex)

    def ready(self) -> bool:
        """Have the package's layers here; False when something must be executed first."""
        while self.complete:
            try:
                self.lookup.fetch([self.final])
                return True
            except DataLoss as error:
                self.disown(error)
                self.walk()
        return False

    def disown(self, error: DataLoss) -> None:
        """Give up a result whose layer is not what it was; raise `error` when that is not the cache's."""
        digest = error.subject.get("digest")
        if not isinstance(digest, str) or not self.lookup.disown(Digest(digest)):
            raise error
        self._progress.emit(
            Warned(f"a result in the build cache is damaged and is made again: {error.message}")
        )
        for vertex in self.plan.vertices:
            if vertex.step is not None and vertex.index in self.states:
                layers = self.states[vertex.index].layers
                if any(built.layer.digest == digest for built in layers):
                    del self.states[vertex.index], self.outcomes[vertex.index]
