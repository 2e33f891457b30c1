"""What an Agentfile wants locked, and whether a lock fits it. Pure, but for asking plugins."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from aos.agentfile.pins import name_of
from aos.build.plan.graph import sources_of
from aos.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from aos.agentfile.definition import Definition, Plugin
    from aos.agentfile.lock import Lock, LockedStep
    from aos.build.context.inputs import Inputs
    from aos.build.plugins import Plugins

__all__ = [
    "NO_LOCK",
    "Honour",
    "LockUse",
    "StepLock",
    "Wanted",
    "check_whose",
    "drifted",
    "known_of",
    "match",
    "upgradable",
    "wanted",
]

Place = tuple[str, int]


@dataclass(slots=True)
class StepLock:
    """What a lock means to one step."""

    pins: tuple[str, ...] | None
    """Exactly these; None: the step decides, and says so in `found`."""
    prefer: tuple[str, ...] = ()
    """Pins that a step that decides keeps where they still fit."""
    found: tuple[str, ...] = ()
    occasion: str = ""
    """Tells one decision from all others, so that none is answered from the cache."""

    def components(self, inputs: Mapping[str, object]) -> dict[str, object]:
        """The components of the step's key: pins stand for the files that they were made of."""
        if self.pins is None:
            return {**inputs, "lock": {"occasion": self.occasion}}
        found = {name: value for name, value in inputs.items() if name != "requirements"}
        return found | {"lock": _parts(self.pins)}


class LockUse(Protocol):
    """What a build does about a lock."""

    def steps(self, wants: Sequence[Wanted]) -> dict[Place, StepLock]:
        """What the lock means to each step that it concerns."""
        ...

    def known(self, stage: str, step: Plugin) -> dict[str, str]:
        """What a plugin need not look up."""
        ...

    def base(self, reference: str) -> str:
        """The digest that a base must have; "" for any."""
        ...

    def check(
        self,
        definition: Definition,
        stages: Collection[str],
        wants: Sequence[Wanted],
        bases: Mapping[str, str],
        platform: str,
    ) -> None:
        """Refuse to build. Raise FailedPrecondition (`lock-drift`, `lock-foreign`, `lock-platform`)."""
        ...


class _NoLock:
    def steps(self, wants: Sequence[Wanted]) -> dict[Place, StepLock]:
        return {}

    def known(self, stage: str, step: Plugin) -> dict[str, str]:
        return {}

    def base(self, reference: str) -> str:
        return ""

    def check(self, *args: object) -> None:
        pass


NO_LOCK: LockUse = _NoLock()


@dataclass(frozen=True, slots=True)
class Honour:
    """A build with a lock: exactly what it says, or nothing."""

    lock: Lock

    def steps(self, wants: Sequence[Wanted]) -> dict[Place, StepLock]:
        return {place: StepLock(entry.pins) for place, entry in match(wants, self.lock).items()}

    def known(self, stage: str, step: Plugin) -> dict[str, str]:
        return known_of(self.lock, stage, step)

    def base(self, reference: str) -> str:
        return dict(self.lock.bases).get(reference, "")

    def check(
        self,
        definition: Definition,
        stages: Collection[str],
        wants: Sequence[Wanted],
        bases: Mapping[str, str],
        platform: str,
    ) -> None:
        said = drifted(self.lock, wants, bases, definition=definition, stages=stages, platform=platform)
        if said:
            lines = "\n".join(f"    {line}" for line in said)
            raise FailedPrecondition(
                f"{self.lock.file} does not fit the Agentfile:\n{lines}",
                code="lock-drift",
                hint="`aos lock` brings it up to date and keeps what still fits; `--no-lock` builds without it",
                file=self.lock.file,
                drift=list(said),
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A step whose meaning depends on the day it is built."""

    place: Place
    kind: str
    """As `LockedStep.kind`."""
    asks: tuple[str, ...]
    location: str = field(default="", compare=False)
    looked_up: tuple[str, ...] | None = None
    """The pins of a plugin that looks up what its options name when it is asked for its inputs; None: of no such."""

    @property
    def stage(self) -> str:
        return self.place[0]


def wanted(definition: Definition, inputs: Inputs, plugins: Plugins, stages: Iterable[str]) -> list[Wanted]:
    """The steps of these stages that a lock must have, in the order of the definition."""
    found = []
    wanted_stages = set(stages)
    for stage in definition.stages:
        for position, step in enumerate(stage.steps) if stage.name in wanted_stages else ():
            place = (stage.name, position)
            if step.kind == "install":
                asks = inputs.requirements[place].asked if step.tool == "pip" else step.packages
                found.append(Wanted(place, f"install {step.tool}", tuple(asks), stage.location))
            elif step.kind == "plugin":
                plugin = plugins.get(step.name)
                names: tuple[str, ...] = getattr(plugin, "looks_up", ())
                declared = cast("Mapping[str, object]", inputs.components[place]["plugin"])
                looked_up = tuple(f"{name} {declared[name]}" for name in names) if names else None
                if names or getattr(plugin, "locks", False):
                    kind = f"plugin {step.name}"
                    found.append(Wanted(place, kind, asked_of_plugin(step), stage.location, looked_up))
    return found


def asked_of_plugin(step: Plugin) -> tuple[str, ...]:
    return (json.dumps(dict(step.options), sort_keys=True, ensure_ascii=False),)


def known_of(lock: Lock, stage: str, step: Plugin) -> dict[str, str]:
    """What a lock has of what a plugin would look up."""
    asked = (stage, f"plugin {step.name}", asked_of_plugin(step))
    entry = next((one for one in lock.steps if (one.stage, one.kind, one.asks) == asked), None)
    return {name_of(line): line.partition(" ")[2] for line in entry.pins} if entry else {}


def match(wants: Sequence[Wanted], lock: Lock) -> dict[Place, LockedStep]:
    """The entry of each step that has one: of the same stage and kind, asking for the same."""
    left = list(lock.steps)
    found = {}
    for want in wants:
        for entry in left:
            if (entry.stage, entry.kind, entry.asks) == (want.stage, want.kind, want.asks):
                found[want.place] = entry
                left.remove(entry)
                break
    return found


def check_whose(lock: Lock, definition: Definition, platform: str) -> None:
    """Raise FailedPrecondition (`lock-foreign`, `lock-platform`) when it cannot be this Agentfile's at all."""
    if lock.agent != definition.metadata.name:
        raise FailedPrecondition(
            f"{lock.file} belongs to another Agentfile: it locks {lock.agent!r}, and this is "
            f"{definition.metadata.name!r}",
            code="lock-foreign",
            hint="remove it and run `aos lock`; after a change of name: change `agent` in it, too",
            file=lock.file,
        )
    if lock.platform != platform:
        raise FailedPrecondition(
            f"{lock.file} was written for {lock.platform}, and this build is for {platform}",
            code="lock-platform",
            hint="one lock holds for one platform; `aos build --no-lock` builds without it",
            file=lock.file,
        )


def drifted(
    lock: Lock,
    wants: Sequence[Wanted],
    bases: Mapping[str, str],
    *,
    definition: Definition,
    stages: Collection[str],
    platform: str,
) -> list[str]:
    """How the lock and the Agentfile differ in these stages, a line each; empty when the lock fits.

    `bases`: the digest of each base, "" where it is not known here. Raise what `check_whose` raises."""
    check_whose(lock, definition, platform)
    fitting = match(wants, lock)
    used = {id(entry) for entry in fitting.values()}
    known = {stage.name for stage in definition.stages}
    left = [
        one for one in lock.steps if id(one) not in used and (one.stage in stages or one.stage not in known)
    ]
    said: list[str] = []
    for want in wants:
        if want.place not in fitting:
            near = next((one for one in left if (one.stage, one.kind) == (want.stage, want.kind)), None)
            if near is not None:
                left.remove(near)
            said += _differences(want, near)
    said += [f"{_step(one)} ({one.location}) is not in the Agentfile any more" for one in left]
    return [*_base_drift(lock, bases, definition), *said]


def _differences(want: Wanted, near: LockedStep | None) -> Iterator[str]:
    if near is None:
        yield f"{_step(want)} is not in the lock"
        return
    for text in want.asks:
        if text not in near.asks:
            yield f"{_step(want)} asks for {text!r:.200}, which is not in the lock"
    for text in near.asks:
        if text not in want.asks:
            yield f"{_step(want)} does not ask for {text!r:.200} any more ({near.location})"
    if sorted(want.asks) == sorted(near.asks):
        yield f"{_step(want)} asks in another order than in the lock ({near.location})"


def _base_drift(lock: Lock, bases: Mapping[str, str], definition: Definition) -> Iterator[str]:
    locked = dict(lock.bases)
    for base, digest in bases.items():
        if base not in locked:
            yield f"the base {base!r} is not in the lock"
        elif digest and digest != locked[base]:
            yield f"the base {base!r} is {digest} now, and {locked[base]} in the lock"
    named = {stage.base for stage in definition.stages}
    named |= {name for stage in definition.stages for step in stage.steps for name in sources_of(step)}
    for base in locked.keys() - named:
        yield f"the base {base!r} is not in the Agentfile any more"


def upgradable(lock: Lock) -> set[str]:
    """The names that `--upgrade` takes: of pins, of plugins, of bases."""
    names = {name_of(line) for step in lock.steps for line in step.pins}
    names |= {step.kind.removeprefix("plugin ") for step in lock.steps if step.kind.startswith("plugin ")}
    return names | {reference for reference, _ in lock.bases}


def _parts(pins: Iterable[str]) -> dict[str, object]:
    """Pins as parts of a component of a key, by name."""
    parts: dict[str, object] = {}
    for line in pins:
        name = name_of(line)
        while name in parts:
            name += "+"
        parts[name] = line
    return parts


def _step(one: Wanted | LockedStep) -> str:
    return f"[{one.stage}] {one.kind}" if one.stage else one.kind
