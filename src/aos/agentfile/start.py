"""What `aos init` writes: an agent in Python that builds and runs as it is."""

from __future__ import annotations

__all__ = ["starting_files"]

_AGENTFILE = """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata:
  name: "{name}"
  version: 0.1.0
  description: What this agent does, in one line

from: scratch
steps:
  - plugin: {{name: debian, with: {{suite: bookworm, include: [python3]}}}}
  # - install: {{pip: [requests==2.32.3]}}
  - copy: {{src: agent.py, dest: /app/}}

config:
  workDir: /app
  env:
    PYTHONUNBUFFERED: "1" # so that its logs appear at once

entrypoint:
  command: [python3, agent.py]

resources:
  memory: 512Mi
  pids: 128

# network: host # agents see no network unless they are given one
# restart: on-failure
"""

_AGENT = '''\
"""An agent: it says that it runs, and stops when it is asked to."""

import signal
import sys
import time


def stop(signum, frame):
    print("stopping", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
print("running; stop me with `aos stop`", flush=True)
while True:
    time.sleep(60)
'''

_IGNORE = """\
# What the build never sees; the rules are those of .dockerignore.
.git
.venv
**/__pycache__
"""


def starting_files(name: str) -> dict[str, str]:
    """File name -> content."""
    return {"Agentfile": _AGENTFILE.format(name=name), "agent.py": _AGENT, ".aosignore": _IGNORE}
