"""LUKS and device-mapper: headers, pins, unlocking, live mappings."""
