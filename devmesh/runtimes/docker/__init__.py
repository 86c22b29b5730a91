"""A rendered Compose project on the user's Docker engine.

Five words: *pod* (the container that owns a workload's network namespace), *part* (one of the mesh's own containers), *project* (the rendered
compose file), *engine* (asked through the Docker SDK), *keeper* (the host process that follows the engine's events).
`addresses` and `images` -> `project` (pods, parts) -> `compose` (drives `docker compose`) -> `engine`; `entry` and `pod` run inside containers.
"""
