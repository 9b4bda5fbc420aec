"""The file system in a volume: its check, its mounts, its health, its owners."""
