"""Plain processes on loopback: no root, no engine, no images."""
