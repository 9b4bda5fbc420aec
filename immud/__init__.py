"""immud: an ordinary systemd distribution, made immutable; a person's data, carried away."""

__version__ = "0.1.0"
