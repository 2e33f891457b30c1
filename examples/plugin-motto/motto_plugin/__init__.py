"""`plugin: {name: motto, with: {text: …}}` writes /motto. docs/plugins.md explains it line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.build.plugins import PluginTask

__all__ = ["Motto"]


class Motto:
    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        text = options.get("text")
        if set(options) != {"text"} or not isinstance(text, str):
            raise ValueError("'text' is needed, and nothing else")
        return {"text": text}

    async def execute(self, task: PluginTask) -> None:
        task.output("writing the motto")
        (task.root / "motto").write_text(f"{task.inputs['text']}\n")
        await task.run(["chmod", "0444", str(task.root / "motto")], {"PATH": task.environ["PATH"]})
