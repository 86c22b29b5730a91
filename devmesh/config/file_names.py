"""The names under which compose looks for a project's file, in its order (compose-go, DefaultFileNames and DefaultOverrideFileNames)."""

COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_NAMES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml")
