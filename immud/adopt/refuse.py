"""Why a row cannot be changed: each check raises an error that says what to do instead."""

from immud.adopt.facts import Declared, Entry, Kind, Mounted, Observed, Partition, RowFacts
from immud.enable.fstab import OWN
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from immud.make.target import human
from immud.tomb.absence import absent


def system(observed: Observed) -> None:
    """Raise where nothing at all can be changed from here."""
    if not observed.host_namespace:
        raise ImmudError(
            "this process has a mount namespace of its own, so it does not see what the system "
            "sees: run the command from a login shell, outside of a lease or a container"
        )
    if not observed.writable:
        raise ImmudError(
            "the root file system itself is read-only, not only its mount: the kernel's log "
            "(`journalctl -k`) says why"
        )


def together(errors: list[ImmudError], verb: str, others: list[str]) -> ImmudError:
    """All that is to be said before anything is done, as one error of the first's kind."""
    text = "\n".join(str(error) for error in errors)
    text += "\nNothing was changed."
    if verb == "adopt":
        text += " A row that is to stay as it is can be dropped in /etc/immud/immud.toml."
    if others:
        text += f" What can be done now: immud {verb} {' '.join(others)}"
    return type(errors[0])(text)


def used(path: str, users: tuple[str, ...]) -> None:
    """Raise where what is written meanwhile would be missing in a copy."""
    if users:
        raise Busy(
            f"{path} is in use, and what is written there while it is copied would be lost: "
            f"{shown(users)}. Log these users out (loginctl), stop those services, and run this "
            "again from a login as root (not sudo), in a directory outside."
        )


def used_mount(path: str, users: tuple[str, ...]) -> None:
    """Raise where a file system cannot be unmounted."""
    if users:
        raise Busy(
            f"{path} is in use, and has to be unmounted to be mounted elsewhere: {shown(users)}. "
            "Log these users out (loginctl), stop those services, and run this again from a login "
            "as root (not sudo), in a directory outside."
        )


def automatic(fact: RowFacts, partition: Partition) -> None:
    """Raise: it would be mounted at the link, and a boot that tries to ends in emergency mode."""
    where, device = partition.where, partition.device
    if not partition.mounted:
        raise OtherFileSystem(
            f"systemd mounts {device} at {where} as soon as nothing is in that, because of its GPT "
            f"type, and cannot at a link. Have it leave that partition alone: {partition.mend}; "
            "then run this again"
        )
    line = f"{device} {where} auto defaults 0 2"
    asked = any(one.origin.startswith("/etc/fstab:") for one in fact.declared)
    raise OtherFileSystem(
        f"systemd mounts {device} at {where} because of its GPT type, and "
        f"cannot at a link. Have it leave that partition alone: {partition.mend}; "
        + ("" if asked else f"write into /etc/fstab: {line}; run `systemctl daemon-reload`; ")
        + "then run this again"
    )


def by_unit(unit: Declared, old: str, new: str) -> None:
    """Raise: immud changes lines of fstab, and no units."""
    name, other = _names(unit, new)
    raise OtherFileSystem(
        f"{unit.origin} mounts {unit.what or 'something'} at {old}, where it is in the way. A line "
        "of /etc/fstab would be changed by itself; a unit has to be renamed, from outside of "
        f"{old}:\n"
        f"    systemctl disable --now {name}\n"
        f"    sed 's,^Where=.*,Where={new},' {unit.origin} >/etc/systemd/system/{other}\n"
        f"    rm {unit.origin}; mkdir -p {new}; systemctl enable --now {other}\n"
        "Then run this again."
    )


def by_own_unit(unit: Declared, old: str, new: str) -> None:
    """Raise: the same in the /etc that PID 1 begins with."""
    name, other = _names(unit, new)
    raise OtherFileSystem(
        f"{unit.origin} mounts {unit.what or 'something'} at {old}, where it would be in the way "
        "at the next boot, before there is the /etc that is shown now. It has to be renamed:\n"
        "    immud unlock -- sh -ec 'mount --bind / /mnt; cd /mnt/etc/systemd/system; "
        f'systemctl --root=/mnt disable {name}; sed "s,^Where=.*,Where={new}," {name} >{other}; '
        f"rm {name}; systemctl --root=/mnt enable {other}; cd /; umount /mnt'\n"
        "Then run this again."
    )


def _names(unit: Declared, new: str) -> tuple[str, str]:
    """A unit's name, and that of one which mounts the same at `new`."""
    file = unit.origin.removesuffix(OWN).rpartition("/")[2]
    return file, new.strip("/").replace("/", "-") + ".mount"


def automounted(fact: RowFacts) -> None:
    """Raise: systemd would mount it again as soon as somebody looks."""
    raise OtherFileSystem(
        f"{fact.row.path} is mounted when it is used (x-systemd.automount): take that option out "
        "of /etc/fstab, run `systemctl daemon-reload`, unmount it, and run this again"
    )


def twice(fact: RowFacts) -> None:
    """Raise where it is not clear what is to be mounted where."""
    raise OtherFileSystem(
        f"/etc/fstab mounts something at {fact.row.path} and at {fact.row.directory}, or more than "
        f"one thing is mounted at {fact.row.path}: leave one of them, and run this again"
    )


def shown(users: tuple[str, ...]) -> str:
    """The first of them, for a person."""
    return ", ".join(users[:8]) + (f" and {len(users) - 8} more" if len(users) > 8 else "")


def no_room(sizes: list[tuple[str, int]], place: str, free: int) -> None:
    """Raise: copying what is at these paths would fill a file system. All in bytes."""
    largest = sorted(sizes, key=lambda each: -each[1])
    which = ", ".join(f"{path} ({human(size)})" for path, size in largest)
    total = f", {human(sum(size for _, size in sizes))} together" if sizes[1:] else ""
    raise ImmudError(
        f"there is no room on the file system of {place} for a copy of {which}{total}: "
        f"{human(free)} are free. Make room there, or name fewer paths, and run this again. "
        "Nothing was changed."
    )


def still_kept(fact: RowFacts, path: str) -> None:
    """Raise: an earlier original has the name the next one needs."""
    raise TargetExists(
        f"{path} is still there, kept when {fact.row.path} was copied before: look whether "
        "anything in it is missed, and move it away."
    )


def mounted_inside(inside: str, path: str) -> None:
    """Raise: what is mounted there is not part of what has to be copied."""
    raise Busy(
        f"{inside} is mounted inside {path}: unmount it (umount {inside}) and run this again"
    )


def one_file_system(fact: RowFacts) -> None:
    """Raise where path and directory are not provably entries of one file system."""
    pair = f"{fact.row.path} cannot change places with {fact.row.directory}"
    need = "that works only on one file system, the one / is on."
    if fact.directory_parent.unfit and fact.path_parent.same:
        raise OtherFileSystem(
            f"{pair}: {fact.directory_parent.why}, and nothing can be copied there: "
            f"{fact.directory_parent.unfit}."
        )
    by_hand = (
        f"Copy the data to {fact.row.directory} by hand (cp -a) while nobody is logged in, move "
        f"{fact.row.path} away, and link it (ln -s {fact.row.target} {fact.row.path})."
        if not fact.volatile
        else ""
    )
    for place in (fact.path_parent, fact.directory_parent):
        if not place.same:
            raise OtherFileSystem(f"{pair}: {place.why}; {need} {by_hand}")
    if not fact.volatile and fact.path_parent.device != fact.directory_parent.device:
        raise OtherFileSystem(
            f"{pair}: {fact.path_parent.path} and {fact.directory_parent.path} are two btrfs "
            f"subvolumes; {need} {by_hand}"
        )


def mounts(fact: RowFacts) -> None:
    """Raise where something other than immud's own clone is mounted at or below the path."""
    path = fact.row.path
    for mount in fact.mounts:
        if not mount.own:
            raise OtherFileSystem(
                f"{path} is a file system of its own, {_device(mount)}: a link cannot take its "
                f"place. Mount it at {fact.row.directory} instead (in /etc/fstab), unmount {path} "
                f"and run this again."
            )
    if fact.below:
        mounts_below(fact)
    over(fact)


def mounts_below(fact: RowFacts) -> None:
    """Raise: what is mounted inside the path."""
    raise Busy(
        f"{fact.below[0]} is mounted inside {fact.row.path} and would be lost from sight: "
        f"unmount it (umount {fact.below[0]}) and run this again."
    )


def over(fact: RowFacts) -> None:
    """Raise where something is mounted on the row's directory: a tomb, most likely."""
    if fact.over and not fact.volatile:
        if fact.over.source == absent.SOURCE:
            raise Busy(
                f"{fact.row.directory} is in memory, for as long as a tomb is away: copy from it "
                f"what is to be kept, log everybody out, umount {fact.row.directory}, and run this "
                "again"
            )
        raise Busy(
            f"{_device(fact.over)} is mounted at {fact.row.directory}: close the tomb "
            f"(immud close), or unmount it, and run this again"
        )


def declarations(fact: RowFacts) -> None:
    """Raise where fstab or a unit is going to mount something at or below the path."""
    for one in fact.declared:
        if one.where == fact.row.directory:
            raise OtherFileSystem(
                f"{one.origin} mounts {one.what or 'something'} at {one.where}, which would hide "
                f"what is moved there from {fact.row.path}. Remove that line first, or copy the "
                "data onto that file system by hand."
            )
        declared_below(fact, one)


def declared_below(fact: RowFacts, one: Declared) -> None:
    """Raise: a mount whose path would cross the link."""
    instead = fact.row.directory + one.where[len(fact.row.path) :]
    raise OtherFileSystem(
        f"{one.origin} mounts {one.what or 'something'} at {one.where}, which would be "
        f"behind the link. Change it to {instead}, run `systemctl daemon-reload`, and then this "
        "again."
    )


def foreign(fact: RowFacts) -> None:
    """Raise where the path itself is neither a directory nor absent nor immud's link."""
    raise TargetExists(
        f"{fact.row.path} is {fact.path.describe()}, not a directory: immud leaves it alone. "
        "Move it away and run this again."
    )


def occupied(fact: RowFacts, entry: Entry, path: str) -> None:
    """Raise: something that is not immud's is where the directory would go."""
    advice = "Move it away and run this again."
    if entry.kind is Kind.DIRECTORY and fact.path.is_directory and fact.path.empty:
        advice = (
            f"{fact.row.path} is empty: if {path} is what belongs there, remove the empty "
            f"directory (rmdir {fact.row.path}) and run this again to get the link."
        )
    raise TargetExists(
        f"{path} is {entry.describe()}, and {fact.row.path} would have to go there. {advice}"
    )


def _device(mount: Mounted) -> str:
    return f"{mount.source} ({mount.fstype})"
