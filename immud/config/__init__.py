"""The configuration: files, keys and values, and the boot plan they are compiled to."""
