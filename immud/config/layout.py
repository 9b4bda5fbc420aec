"""The built-in tables of compatibility links, as data.

`silverblue` is Fedora Silverblue's table; a configuration adds to it, drops from
it or changes its rows. `none` starts from nothing.
"""

from immud.early.plan import Row

_USR_LOCAL = ("bin", "etc", "games", "include", "lib", "man", "sbin", "share", "src")

SILVERBLUE = (
    Row("/home", "var/home"),
    Row("/opt", "var/opt"),
    Row("/srv", "var/srv"),
    Row("/root", "var/roothome", mode=0o700),
    Row("/usr/local", "../var/usrlocal", inside=_USR_LOCAL),
    Row("/mnt", "var/mnt"),
    Row("/media", "run/media"),
    Row("/tmp", "sysroot/tmp", mode=0o1777),
)

TABLES = {"silverblue": SILVERBLUE, "none": ()}
