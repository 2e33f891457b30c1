"""`aos lock`: build what an Agentfile's names decide, and write down what they were found to mean.

What a lock has already is kept as long as it fits; what is missing, or to be upgraded, is decided by the step that
installs it, in the target. What has been executed is in the cache for the build that follows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aos.agentfile.lock import Lock, LockedStep
from aos.agentfile.pins import name_of
from aos.build.bases import find_base
from aos.build.context.files import open_context
from aos.build.context.inputs import gather_inputs
from aos.build.lock.locked import Honour, StepLock, check_whose, drifted, known_of, match, upgradable, wanted
from aos.build.plan.graph import make_plan, needed_stages, step_text
from aos.build.progress.events import Note
from aos.build.session import build_platform, open_session
from aos.build.solve.interrupt import run_interruptibly, stopped_by_signals
from aos.errors import AosError, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from aos.agentfile.definition import Definition, Plugin
    from aos.build.lock.locked import Wanted
    from aos.build.progress.events import Progress
    from aos.build.request import BuildRequest, BuildServices
    from aos.build.session import Session

__all__ = ["Upgrade", "changes", "check_blocking", "lock_blocking"]

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What may become newer: `names` of pins, plugins and bases, or everything."""

    everything: bool = False
    names: frozenset[str] = frozenset()

    def lets_go(self, entry: LockedStep) -> bool:
        """Whether the step must decide again."""
        return not all(self.keeps(entry, line) for line in entry.pins)

    def keeps(self, entry: LockedStep, line: str) -> bool:
        plugin = entry.kind.removeprefix("plugin ")
        return not self.everything and not self.names & {name_of(line), plugin}


def lock_blocking(
    request: BuildRequest,
    services: BuildServices,
    progress: Progress,
    old: Lock | None,
    upgrade: Upgrade,
) -> Lock:
    """The lock of the request's Agentfile. Raise what a build raises, NotFound (`lock-name-unknown`), and what
    `check_whose` raises."""
    if old is not None:
        check_whose(old, request.definition, build_platform(request.platform))
    _check_names(old, upgrade)
    deciding = _Deciding(services, old, upgrade)
    request = replace(request, lock=deciding)
    while True:
        with stopped_by_signals(), open_session(request, services, progress) as session:
            try:
                if not session.results.complete:
                    run_interruptibly(session.execute)
            except AosError as error:
                given_up = deciding.give_way(request.definition, error)
                if not given_up:
                    raise
                progress.emit(Note(given_up))
                continue
            return _conclude(deciding, session, request.definition)


def changes(old: Lock | None, new: Lock) -> list[str]:
    """What is different, a line each, as a person reads it: `rich 13.9.3 -> 13.9.4`."""

    def known(lock: Lock | None) -> dict[tuple[str, str, str], str]:
        found = {("", "from", name): digest for name, digest in lock.bases} if lock else {}
        for step in lock.steps if lock else ():
            for line in step.pins:
                name, _, rest = line.partition(" ")
                found[step.stage, step.kind, name] = rest
        return found

    before, after = known(old), known(new)
    said = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, ""), after.get(key, "")
        if was != now:
            where = f"[{key[0]}] " if key[0] else ""
            words = [text.split(" ")[0] for text in (was, now)]
            if words[0] == words[1]:  # the same version, another file
                words = [was, now]
            arrow = " -> ".join(filter(None, words)) if was and now else words[1] or f"{words[0]} removed"
            said.append(f"{where}{key[1]}: {key[2]} {arrow}")
    return said


def check_blocking(request: BuildRequest, services: BuildServices, lock: Lock) -> list[str]:
    """How the lock differs from the Agentfile, a line each. Executes nothing, and needs no base to be here."""
    definition = request.definition
    context = open_context(request.context, memory=services.directory / "digests", began=services.clock.now())
    inputs = gather_inputs(definition, context, services.plugins, known=Honour(lock).known)
    stages = needed_stages(definition)
    plan = make_plan(
        definition, inputs.components, platform=build_platform(request.platform), epoch=request.epoch
    )
    bases = {}
    for vertex in plan.vertices:
        if vertex.step is None:
            try:
                found = find_base(
                    vertex, context.tree.root, services.content.blobs, services.registry, lambda digest: None
                )
                bases[vertex.base] = str(found.manifest_digest)
            except NotFound:
                bases[vertex.base] = ""
    wants = wanted(definition, inputs, services.plugins, stages)
    return drifted(lock, wants, bases, definition=definition, stages=stages, platform=plan.platform)


class _Deciding:
    """Keeps the old pins of each step as long as they fit, then prefers them, then takes what there is."""

    def __init__(self, services: BuildServices, old: Lock | None, upgrade: Upgrade) -> None:
        self.wants: Sequence[Wanted] = ()
        self.bases: Mapping[str, str] = {}
        self._services = services
        self._old = old
        self._upgrade = upgrade
        self._locks: dict[Place, StepLock] = {}

    def steps(self, wants: Sequence[Wanted]) -> dict[Place, StepLock]:
        """Each time anew, so that a session after a failed one gets locks that nothing has answered yet."""
        if not self._locks:
            fitting = match(wants, self._old) if self._old else {}
            for want in wants:
                if want.looked_up is not None:
                    self._locks[want.place] = StepLock(want.looked_up)
                    continue
                entry = fitting.get(want.place)
                kept = None if entry is None or self._upgrade.lets_go(entry) else entry.pins
                self._locks[want.place] = self._step_lock(kept, tuple(self._preferred(want)))
        return self._locks

    def known(self, stage: str, step: Plugin) -> dict[str, str]:
        known = known_of(self._old, stage, step) if self._old else {}
        let_go = self._upgrade.everything or self._upgrade.names & {step.name, *known}
        return {} if let_go else known

    def base(self, reference: str) -> str:
        return dict(self._old.bases).get(reference, "") if self._old else ""

    def check(
        self,
        definition: Definition,
        stages: Collection[str],
        wants: Sequence[Wanted],
        bases: Mapping[str, str],
        platform: str,
    ) -> None:
        """Nothing is refused: the lock will be what is found."""
        self.wants, self.bases = wants, bases

    def give_way(self, definition: Definition, error: AosError) -> str:
        """Loosen the lock of the step that failed; what to tell, or "" when it was not the lock's fault."""
        stages = {stage.name: stage for stage in definition.stages}
        for place, lock in self._locks.items():
            failed = (error.subject.get("stage"), error.subject.get("step"))
            if error.code not in ("step-failed", "lock-file-gone") or failed != (
                place[0],
                step_text(stages[place[0]].steps[place[1]]),
            ):
                continue
            if lock.pins is not None:
                self._locks[place] = self._step_lock(None, lock.prefer)
                return f"the lock's pins do not fit `{failed[1]}` any more: others are looked for"
            if lock.prefer:
                self._locks[place] = self._step_lock(None, ())
                return f"`{failed[1]}` cannot be had near the lock's pins: newer ones are looked for"
        return ""

    def _step_lock(self, pins: tuple[str, ...] | None, prefer: tuple[str, ...]) -> StepLock:
        return StepLock(pins, prefer, occasion="" if pins is not None else self._services.ids.fresh())

    def _preferred(self, want: Wanted) -> Iterator[str]:
        """Pins of steps of the same kind in the same stage: a step may have come to ask for something else."""
        seen = set()
        for entry in self._old.steps if self._old else ():
            if (entry.stage, entry.kind) == (want.stage, want.kind):
                for line in entry.pins:
                    if self._upgrade.keeps(entry, line) and line not in seen:
                        seen.add(line)
                        yield line


def _conclude(deciding: _Deciding, session: Session, definition: Definition) -> Lock:
    """Write the lock down, and what was executed under the keys that a build with it looks under."""
    locks = deciding.steps(deciding.wants)
    for vertex in session.results.plan.vertices:
        lock = locks.get(vertex.place) if vertex.step is not None else None
        if lock is None or lock.pins is not None:
            continue
        inputs = {name: value for name, value in vertex.inputs.items() if name != "lock"}
        session.results.lookup.move(vertex, replace(vertex, inputs=StepLock(lock.found).components(inputs)))
    steps = []
    for want in deciding.wants:
        lock = locks[want.place]
        pins = lock.found if lock.pins is None else lock.pins
        session.kept.pin(pins)
        steps.append(LockedStep(want.stage, want.kind, want.asks, pins))
    return Lock(
        definition.metadata.name, session.results.plan.platform, tuple(deciding.bases.items()), tuple(steps)
    )


def _check_names(old: Lock | None, upgrade: Upgrade) -> None:
    import difflib

    known = upgradable(old) if old else set()
    for name in sorted(upgrade.names - known):
        near = difflib.get_close_matches(name, known, n=1)
        raise NotFound(
            f"the lock has no {name!r} that could be upgraded",
            code="lock-name-unknown",
            hint=f"did you mean {near[0]!r}?"
            if near
            else "names of packages, plugins and bases in Agentfile.lock",
            name=name,
        )
