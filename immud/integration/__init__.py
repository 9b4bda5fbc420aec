"""The rest of the system, told of a tomb's life: units and targets, hooks, sleep."""
