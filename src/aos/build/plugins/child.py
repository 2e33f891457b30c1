"""The program that a plugin from outside runs in: one call, then it ends. See `external.py` for the other side.

    python child.py SYS.PATH-AS-JSON DESCRIPTOR

What the plugin and its commands write is the process's output. Request and answer are JSON in one file in memory,
which nothing that the plugin starts inherits. Every build that uses a plugin starts it: it imports what it needs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _WrongOptions(Exception):
    """What `inputs` says of the options."""


class _CommandFailed(Exception):
    """A command that `PluginTask.run` ran."""


def main(path: str, descriptor: int) -> None:
    sys.path[:] = json.loads(path)
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "r+b") as file:
        request = json.loads(file.read())
        file.seek(0)
        file.truncate()  # a plugin that ends the process leaves no answer, whatever the exit code
        answer = json.dumps(_answer(request)).encode()
        file.write(answer)


def _answer(request: dict[str, Any]) -> dict[str, object]:
    from aos.errors import AosError

    try:
        plugin = _load(request["entry_point"])
        if request["call"] == "inputs":
            return {"inputs": _inputs(plugin, request["options"])}
        _execute(plugin, request["task"])
    except _WrongOptions as error:
        return {"options": str(error)}
    except _CommandFailed as error:
        return {"failed": str(error)}
    except AosError as error:
        return {"error": error.to_wire()}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"failed": f"failed: {type(error).__name__}: {error}"}
    return {}


def _load(entry_point: str) -> Any:
    module, _, name = entry_point.partition(":")
    found: Any = importlib.import_module(module)
    for part in filter(None, name.split(".")):
        found = getattr(found, part)
    return found() if isinstance(found, type) else found


def _inputs(plugin: Any, options: Mapping[str, object]) -> Mapping[str, object]:
    try:
        found = plugin.inputs(options)
    except ValueError as error:
        raise _WrongOptions(error) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"`inputs` must return a dict with texts as keys, not {_short(found)}")
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`inputs` must return JSON: {error}") from error
    return found


def _execute(plugin: Any, task: dict[str, Any]) -> None:
    import asyncio
    import inspect
    from pathlib import Path

    from aos.build.plugins import PluginTask
    from aos.content.tree import LayerTree

    environ = task.pop("environ")
    work = PluginTask(
        **task
        | {name: Path(task[name]) for name in ("root", "cache", "scratch")}
        | {"below": LayerTree([Path(layer) for layer in task["below"]])},
        environ=environ,
        output=lambda line: print(line, flush=True),  # noqa: T201 - the build shows this process's output
        run=_run,
    )

    async def call() -> object:
        answer = plugin.execute(work)
        return await answer if inspect.isawaitable(answer) else answer

    answer = asyncio.run(call())
    if answer is not None:
        raise TypeError(f"`execute` must return None, not {_short(answer)}")


async def _run(args: Sequence[str], environ: Mapping[str, str]) -> None:
    import asyncio

    process = await asyncio.create_subprocess_exec(*args, stdin=asyncio.subprocess.DEVNULL, env=dict(environ))
    code = await process.wait()
    if code != 0:
        raise _CommandFailed(f"failed: {args[0]} ended with exit code {code}")


def _short(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
