"""The file systems a tomb may have, and what is particular about each. Pure.

Permissions are what homes need, and a checker or a log what drives that get
pulled need: vfat, exfat and ntfs have neither. Options are those of ext4(5),
xfs(5), btrfs(5) and the kernel's f2fs.rst, without what names another device,
changes whom files belong to, or lets a pulled drive stop the machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from immud.errors import ImmudError


@dataclass(frozen=True, slots=True)
class FileSystem:
    """`checker` is run before a mount, where it does anything; `repair` is for a person to run.

    `options` are allowed, `defaults` used unless given otherwise. `unwritten` are the options
    with which a device is not written to at all, not even to replay a log (but see
    `immud.tomb.fs.check.tidied`).
    """

    name: str
    options: frozenset[str]
    unwritten: tuple[str, ...]
    repair: str
    checker: str = ""
    defaults: tuple[str, ...] = ()
    forbidden: frozenset[str] = field(default_factory=frozenset)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of the mount, and what holds anyway and is commonly written (see `immud.tomb.fs.mounts`).
ATTRIBUTES = _words(
    "ro rw noexec exec noatime nodiratime relatime strictatime nosuid nodev defaults"
)
# Of the kernel itself, whatever the file system (fsconfig(2)).
COMMON = _words("sync async dirsync lazytime nolazytime")

_EXT4 = _words(
    """
    acl noacl auto_da_alloc noauto_da_alloc barrier nobarrier block_validity noblock_validity
    commit data data_err delalloc nodelalloc dioread_lock dioread_nolock discard nodiscard errors
    i_version init_itable noinit_itable inode_readahead_blks journal_async_commit
    journal_checksum nojournal_checksum journal_ioprio max_batch_time max_dir_size_kb
    mb_optimize_scan min_batch_time noload norecovery grpquota prjquota quota noquota usrquota
    stripe user_xattr nouser_xattr
    """
)
_XFS = _words(
    """
    allocsize attr2 noattr2 discard nodiscard filestreams gquota gqnoenforce grpquota ikeep noikeep
    inode32 inode64 largeio nolargeio logbsize logbufs noalign norecovery noquota pquota pqnoenforce
    prjquota quota sunit swalloc swidth uquota uqnoenforce usrquota wsync
    """
)
_BTRFS = _words(
    """
    acl noacl autodefrag noautodefrag barrier nobarrier clear_cache commit compress compress-force
    datacow nodatacow datasum nodatasum degraded discard nodiscard enospc_debug noenospc_debug
    flushoncommit noflushoncommit max_inline metadata_ratio nospace_cache rescan_uuid_tree rescue
    skip_balance space_cache ssd nossd ssd_spread nossd_spread subvol subvolid thread_pool treelog
    notreelog user_subvol_rm_allowed
    """
)
_F2FS = _words(
    """
    acl noacl active_logs age_extent_cache alloc_mode atgc background_gc barrier nobarrier
    checkpoint_merge nocheckpoint_merge compress_algorithm compress_cache compress_chksum
    compress_extension nocompress_extension compress_log_size compress_mode data_flush discard
    nodiscard discard_unit disable_ext_identify disable_roll_forward norecovery errors extent_cache
    noextent_cache fastboot flush_merge noflush_merge fsync_mode gc_merge nogc_merge grpquota
    inline_data noinline_data inline_dentry noinline_dentry inline_xattr noinline_xattr
    inline_xattr_size io_bits memory mode nat_bits noquota prjquota quota reserve_root usrquota
    user_xattr nouser_xattr whint_mode
    """
)

_TABLE = (
    FileSystem(
        "ext4",
        _EXT4,
        unwritten=("noload",),
        repair="fsck.ext4 -f",
        checker="fsck.ext4",
        # Of mke2fs's making is errors=continue, which goes on writing to what is damaged.
        defaults=("errors=remount-ro",),
        # The drive is pulled, and the machine panics.
        forbidden=_words("errors=panic"),
    ),
    FileSystem("xfs", _XFS, unwritten=("norecovery",), repair="xfs_repair"),
    FileSystem("btrfs", _BTRFS, unwritten=("rescue=nologreplay",), repair="btrfs check --readonly"),
    FileSystem(
        "f2fs",
        _F2FS,
        unwritten=("norecovery",),
        repair="fsck.f2fs -f",
        checker="fsck.f2fs",
        forbidden=_words("errors=panic"),
    ),
)
FILE_SYSTEMS = {one.name: one for one in _TABLE}
# One kernel driver has both, with the same options; a tomb is not made with ext3, but carried.
_AS = {"ext3": "ext4"}
_KNOWN = COMMON.union(*(one.options for one in _TABLE))
_FORBIDDEN = frozenset[str]().union(*(one.forbidden for one in _TABLE))


def known(option: str) -> bool:
    """Whether some file system of a tomb has this option."""
    return option.partition("=")[0] in _KNOWN and option not in _FORBIDDEN


def _of(fstype: str) -> FileSystem:
    """What is known of a file system; of one that only carries files, that it has nothing."""
    return FILE_SYSTEMS.get(_AS.get(fstype, fstype)) or FileSystem(fstype, frozenset(), (), "")


def unwritten(fstype: str) -> tuple[str, ...]:
    """The options with which the log of any file system is left alone; empty where it has none."""
    return _of(fstype).unwritten


def parameters(fstype: str, given: Iterable[str]) -> list[str]:
    """What the file system is told: the options given, checked, and its defaults.

    Any other than a tomb's has neither. Raises ImmudError for an option it does not
    have, or must not be given.
    """
    system = _of(fstype)
    options = list(given)
    for option in options:
        name = option.partition("=")[0]
        if name not in system.options | COMMON or option in system.forbidden:
            raise ImmudError(
                f"The mount option {option} is not one a tomb with {fstype} may have; remove it "
                "from its options in the configuration."
            )
    names = {option.partition("=")[0] for option in options}
    return [d for d in system.defaults if d.partition("=")[0] not in names] + options
