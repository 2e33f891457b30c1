"""The process table: agents, their processes, and how they are supervised."""
