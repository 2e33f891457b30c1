"""`aos completion`: scripts that let a shell complete our command lines, made from what the verbs declare."""

from __future__ import annotations

from aos.cli._options import Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Print a completion script: bash: source <(aos completion bash); zsh: the same; "
    "fish: aos completion fish | source",
    "SHELL",
)

_SHELLS = ("bash", "zsh", "fish")
_PACKAGES = ("PACKAGE", "REFERENCE")
_PATHS = ("FILE", "DIR", "DIRECTORY", "PATH", "CONTEXT", "SOURCE", "TARGET")


def main(args: Arguments) -> int:
    shell = args["shell"]
    if shell == "agents":  # for the scripts themselves: never starts a daemon
        return _agents()
    if shell == "packages":
        return _packages()
    if shell not in _SHELLS:
        from aos.cli._options import nearest
        from aos.errors import InvalidArgument

        guess = nearest(shell, _SHELLS)
        raise InvalidArgument(
            f"no completion for {shell!r}: there is {', '.join(_SHELLS)}",
            code="usage",
            hint=f"did you mean {guess}?" if guess else None,
        )
    print(_fish() if shell == "fish" else _bash(zsh=shell == "zsh"))
    return 0


def _agents() -> int:
    from aos.cli import _node
    from aos.errors import AosError

    try:
        with _node.connect(start=False) as node:
            for agent in node.call("agent.list", all=True):
                print(agent["name"])
    except (AosError, OSError):
        return 1
    return 0


def _packages() -> int:
    import os

    from aos.compose.packages import content_store, local_registry
    from aos.config import load_config
    from aos.errors import AosError

    try:
        config = load_config(os.environ)
        for entry in local_registry(config, content_store(config)).list():
            print(entry.reference)
    except (AosError, OSError):
        return 1
    return 0


def _verbs() -> Iterator[tuple[str, str, Verb | None, tuple[str, ...]]]:
    """Yield full name, summary, what it takes (None: only its sub-verbs), sub-verbs."""
    from aos.cli.main import SUMMARIES, load

    for name, summary in SUMMARIES.items():
        module = load(name)
        group = getattr(module, "VERBS", None)
        if group is None:
            yield name, summary, module.VERB, ()
            continue
        yield name, summary, group[""][0] if "" in group else None, tuple(filter(None, group))
        for word, (verb, _) in group.items():
            if word:
                yield f"{name} {word}", verb.summary, verb, ()


def _options(verb: Verb) -> list[Option]:
    return [*verb.options, Option("help", "h", help="Show this help")]


def _bash(*, zsh: bool) -> str:
    from aos.cli.main import SUMMARIES

    words, values, kinds = [], [], []
    groups = []
    for name, _, verb, inside in _verbs():
        offered = list(inside)
        if inside:
            groups.append(name)
        for option in _options(verb) if verb else ():
            names = [f"--{option.long}"] + ([f"-{option.short}"] if option.short else [])
            offered += names
            if option.metavar and not option.implied:
                arm = f"words='{' '.join(option.choices)}'" + (
                    "; files=1" if option.metavar in _PATHS else ""
                )
                values += [f"    '{name}:{one}') {arm} ;;" for one in names]
        words.append(f"    '{name}') words='{' '.join(offered)}' ;;")
        if verb and verb.positionals:
            first = verb.positionals.split()[0].rstrip("?+.")
            if first == "AGENT":
                kinds.append(f"    '{name}') words=\"$words $(aos completion agents 2>/dev/null)\" ;;")
            elif first in _PACKAGES:
                kinds.append(f"    '{name}') words=\"$words $(aos completion packages 2>/dev/null)\" ;;")
            elif first in _PATHS:
                kinds.append(f"    '{name}') files=1 ;;")
            elif first == "VERB":
                kinds.append(f"    '{name}') words=\"$words {' '.join(SUMMARIES)}\" ;;")
            elif first == "SHELL":
                kinds.append(f"    '{name}') words=\"$words {' '.join(_SHELLS)}\" ;;")
    start = "autoload -Uz bashcompinit && bashcompinit\n" if zsh else ""
    return f"""# completion of aos for {"zsh" if zsh else "bash"}
{start}_aos() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} name= word words= files= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    case $word in -*) continue ;; esac
    case $name in
    '') name=$word ;;
    {"|".join(groups)}) name="$name $word"; break ;;
    *) break ;;
    esac
  done
  case "$name:$previous" in
{chr(10).join(values)}
    *)
    case $name in
    '') words='{" ".join(SUMMARIES)} --help --version --debug' ;;
{chr(10).join(words)}
    esac
    case $current in
    -*) ;;
    *)
    case $name in
{chr(10).join(kinds)}
    esac ;;
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "$current"))
}}
complete -o filenames -F _aos aos"""


def _fish() -> str:
    lines = ["# completion of aos for fish", "complete -c aos -f"]
    for name, summary, verb, inside in _verbs():
        first, _, second = name.partition(" ")
        if second:
            lines.append(
                f"complete -c aos -n '__fish_seen_subcommand_from {first}' -a {second} -d {_quoted(summary)}"
            )
        else:
            lines.append(f"complete -c aos -n __fish_use_subcommand -a {name} -d {_quoted(summary)}")
        seen = f"'__fish_seen_subcommand_from {first}" + (
            f"; and __fish_seen_subcommand_from {second}'" if second else "'"
        )
        if verb is None or inside:
            continue
        for option in _options(verb):
            line = f"complete -c aos -n {seen} -l {option.long}"
            line += f" -s {option.short}" if option.short else ""
            line += " -r" if option.metavar and not option.implied else ""
            line += " -F" if option.metavar in _PATHS else ""
            line += f" -a '{' '.join(option.choices)}'" if option.choices else ""
            lines.append(f"{line} -d {_quoted(option.help)}")
        positional = verb.positionals.split()[:1]
        kind = positional[0].rstrip("?+.") if positional else ""
        if kind == "AGENT":
            lines.append(f"complete -c aos -n {seen} -a '(aos completion agents 2>/dev/null)'")
        elif kind in _PACKAGES:
            lines.append(f"complete -c aos -n {seen} -a '(aos completion packages 2>/dev/null)'")
        elif kind == "SHELL":
            lines.append(f"complete -c aos -n {seen} -a '{' '.join(_SHELLS)}'")
        elif kind in _PATHS:
            lines.append(f"complete -c aos -n {seen} -F")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
