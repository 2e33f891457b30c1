"""The language as JSON Schema 2020-12, for editors and for other tools. The reader (read.py) says the same, and more.

Fields that this version refuses are in it, described as such: they are part of the language.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SCHEMA"]

_LATER = "Not supported yet: this version refuses it."
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_ABSOLUTE = r"^(/|\$\{\{)"
_MAP = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    if required:
        out["required"] = list(required)
    return out


_COMMAND = {"oneOf": [{**_TEXT, "description": "For /bin/sh -c."}, {**_TEXTS, "minItems": 1}]}

_COPY = _object(
    {
        "src": {"oneOf": [_TEXT, {**_TEXTS, "minItems": 1}], "description": "Paths of the context; globs."},
        "dest": {**_TEXT, "description": "Ends in '/': a directory."},
        "from": {**_TEXT, "description": "A stage or image to copy from instead of the context."},
        "owner": {
            "type": ["string", "integer"],
            "description": "user or user:group, numbers or names of the image (default 0:0).",
        },
        "mode": {"type": ["string", "integer"], "description": 'Octal, such as "0755".'},
    },
    ("src", "dest"),
)
_PACKAGES = {"packages": _TEXTS, "network": {"type": "boolean"}}
_INSTALL = _object(
    {
        "pip": {
            "oneOf": [
                {**_TEXTS, "minItems": 1},
                _object(
                    {
                        **_PACKAGES,
                        "requirements": {**_TEXT, "description": "A requirements file of the context."},
                    },
                    anyOf=[{"required": ["packages"]}, {"required": ["requirements"]}],
                ),
                _object(
                    {
                        "project": {**_TEXT, "description": "A directory with pyproject.toml and uv.lock."},
                        "network": {"type": "boolean"},
                    },
                    ("project",),
                ),
            ]
        },
        "apt": {"oneOf": [{**_TEXTS, "minItems": 1}, _object(_PACKAGES, ("packages",))]},
        "npm": {"description": _LATER},
        "network": {"type": "boolean", "default": True},
    },
    oneOf=[{"required": ["pip"]}, {"required": ["apt"]}, {"required": ["npm"]}],
)
_ID = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"}
_TARGET = {"type": "string", "pattern": _ABSOLUTE, "description": "Absolute path in the sandbox."}
_CACHE = _object(
    {
        "target": _TARGET,
        "id": {**_TEXT, "description": "Steps that name the same share it (default: the target)."},
        "sharing": {"enum": ["shared", "private", "locked"], "default": "shared"},
    },
    ("target",),
)
_SECRET = _object(
    {
        "id": _ID,
        "target": {**_TARGET, "description": "A file (default: /run/secrets/<id>, unless there is env)."},
        "env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "required": {"type": "boolean", "default": True},
        "mode": {"type": ["string", "integer"], "description": 'Octal (default "0400").'},
    },
    ("id",),
)
_MOUNT = _object(
    {
        "target": _TARGET,
        "from": {**_TEXT, "description": "A stage or image (default: the context)."},
        "source": {**_TEXT, "default": "/", "description": "A path in it."},
    },
    ("target",),
)
_RUN = {
    "oneOf": [
        *_COMMAND["oneOf"],
        _object(
            {
                "command": _COMMAND,
                "env": _MAP,
                "user": _TEXT,
                "workDir": _TEXT,
                "network": {"enum": [True, False, "none", "host", "bridge"], "default": "none"},
                "cache": {"type": "array", "items": _CACHE},
                "secrets": {"type": "array", "items": {"oneOf": [_ID, _SECRET]}},
                "mounts": {"type": "array", "items": _MOUNT},
                "ssh": {"oneOf": [{"type": "boolean"}, {"type": "array", "items": _ID}]},
            },
            ("command",),
        ),
    ]
}
_PLUGIN_NAME = {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$"}
_PLUGIN = {"oneOf": [_PLUGIN_NAME, _object({"name": _PLUGIN_NAME, "with": {"type": "object"}}, ("name",))]}
_STEP = _object(
    {"copy": _COPY, "install": _INSTALL, "run": _RUN, "plugin": _PLUGIN}, minProperties=1, maxProperties=1
)
_STEPS = {"type": "array", "items": _STEP}
_FROM = {**_TEXT, "description": "scratch, a stage, a package or image reference, or oci:DIR[:TAG]."}

_POLICY = {"type": "string", "pattern": "^(never|always|unless-stopped|on-failure(:[1-9][0-9]{0,5})?)$"}
_DURATION = {"type": ["number", "string"], "description": "30s, 1m30s, 500ms, or seconds."}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_HOOK = _object(
    {
        "exec": _COMMAND,
        "where": {"enum": ["sandbox", "host"], "default": "sandbox"},
        "user": _TEXT,
        "timeout": {**_DURATION, "default": "30s"},
        "onFailure": {"enum": ["fail", "ignore"]},
    },
    ("exec",),
)
_HOOK_EVENTS = tuple(
    f"{when}{what}" for what in ("Create", "Start", "Stop", "Delete") for when in ("pre", "post")
)


def _probe(more: dict[str, Any]) -> dict[str, Any]:
    return _object(
        {
            "exec": _COMMAND,
            "http": _object(
                {"port": _PORT, "path": {"type": "string", "pattern": "^/", "default": "/"}}, ("port",)
            ),
            "tcp": {"oneOf": [_PORT, _object({"port": _PORT}, ("port",))]},
            "interval": {**_DURATION, "default": "10s"},
            "timeout": {**_DURATION, "default": "5s"},
            "retries": {"type": "integer", "minimum": 1, "default": 3},
            "startPeriod": {**_DURATION, "default": "0s"},
            **more,
        },
        oneOf=[{"required": [name]} for name in ("exec", "http", "tcp")],
    )


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://openos.dev/schemas/agentfile/v1.json",
    "title": "Agentfile",
    "description": "What an author writes; `aos build` makes an agent package of it.",
    **_object(
        {
            "apiVersion": {"const": "aos.io/v1"},
            "kind": {"const": "AgentPackage"},
            "metadata": _object(
                {
                    "name": {
                        "type": "string",
                        "maxLength": 128,
                        "pattern": r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$",
                    },
                    "version": {"type": "string", "description": "Semantic version 2.0.0."},
                    "description": {"type": "string"},
                    "labels": _MAP,
                },
                ("name", "version"),
            ),
            "from": _FROM,
            "steps": _STEPS,
            "stages": {
                "type": "array",
                "description": "Without a top-level 'from', the last one is the package.",
                "items": _object(
                    {
                        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_.-]{0,62}$"},
                        "from": _FROM,
                        "dependsOn": _TEXTS,
                        "steps": _STEPS,
                    },
                    ("name",),
                ),
            },
            "config": _object(
                {
                    "env": _MAP,
                    "workDir": {"type": "string", "pattern": _ABSOLUTE},
                    "user": _TEXT,
                    "image": _object({"StopSignal": {"type": "string"}}),
                }
            ),
            "entrypoint": _object({"command": _TEXTS, "args": _TEXTS}),
            "resources": _object(
                {
                    "cpu": {"type": ["number", "string"], "description": "CPUs: 1.5, 2, 500m."},
                    "memory": {"type": ["integer", "string"], "description": "Bytes, or 512Mi, 1G."},
                    "pids": {"type": "integer", "minimum": 1},
                    "disk": {
                        "type": ["integer", "string"],
                        "description": "Most that it writes to its own root: bytes, or 512Mi, 1G.",
                    },
                    "gpu": {
                        "oneOf": [
                            {"type": "integer", "minimum": 1},
                            _TEXT,
                            {"type": "array", "items": _TEXT},
                        ],
                        "description": "How many, or devices that the host describes (CDI): nvidia.com/gpu=0.",
                    },
                }
            ),
            "network": {
                "oneOf": [
                    {"enum": ["none", "host", "bridge"]},
                    _object(
                        {
                            "mode": {"enum": ["none", "host", "bridge"]},
                            "egress": {
                                "oneOf": [{"enum": ["internet", "none"]}, _TEXTS],
                                "description": "What it may reach: rules such as 'allow 203.0.113.0/24 tcp 443', "
                                "'deny any udp'; the first that matches decides, what none matches is refused.",
                            },
                            "ports": {
                                "type": "array",
                                "items": {"type": ["integer", "string"], "pattern": "^[0-9]+(/(tcp|udp))?$"},
                                "description": "What it listens on: 8080, 53/udp.",
                            },
                            "bandwidth": _object(
                                {name: {"type": ["integer", "string"]} for name in ("up", "down")},
                                description="Bits per second: 500k, 10M.",
                            ),
                        }
                    ),
                ],
                "description": "none: loopback only (default). bridge: its own, with a policy. host: the host's.",
            },
            "restart": {
                "oneOf": [
                    _POLICY,
                    _object(
                        {
                            "policy": _POLICY,
                            "limit": _object(
                                {"restarts": {"type": "integer", "minimum": 1}, "within": _DURATION},
                                ("restarts", "within"),
                                description="More restarts within that time, and the agent gives up.",
                            ),
                        },
                        ("policy",),
                    ),
                ]
            },
            "stopGracePeriod": {**_DURATION, "description": "From the stop signal to the end (10s)."},
            "health": _probe({"onFailure": {"enum": ["restart", "none"], "default": "restart"}}),
            "readiness": _probe({}),
            "hooks": _object(
                {name: {"oneOf": [_HOOK, {"type": "array", "items": _HOOK}]} for name in _HOOK_EVENTS}
            ),
            "extends": {
                **_TEXT,
                "description": "A file (./ or ../, relative to this one) or a package to go on from.",
            },
            "args": {
                "type": "object",
                "description": "Build arguments: ${{ args.NAME }} is the value; null: --build-arg must give it.",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": ["string", "null"]},
            },
            "dependencies": {"type": "object", "description": _LATER},
            "secrets": {
                "type": "array",
                "description": "What `aos run --secret NAME=...` gives: files in memory.",
                "items": {
                    "oneOf": [
                        _ID,
                        _object(
                            {
                                "name": _ID,
                                "target": {
                                    **_TARGET,
                                    "description": "A file (default: /run/secrets/<name>).",
                                },
                                "env": {"type": "boolean", "default": False},
                                "required": {"type": "boolean", "default": True},
                            },
                            ("name",),
                        ),
                    ]
                },
            },
            "memory": {"type": ["object", "array"], "description": _LATER},
            "ipc": {"type": ["object", "array"], "description": _LATER},
        },
        ("apiVersion", "kind", "metadata"),
        **{
            "if": {"not": {"required": ["extends"]}},
            "then": {
                "anyOf": [{"required": ["from"]}, {"required": ["stages"]}],
                "dependentRequired": {"steps": ["from"]},
                "properties": {"stages": {"items": {"required": ["from"]}}},
            },
        },
    ),
}
