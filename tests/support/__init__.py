"""The test beds: disk images, containers, virtual machines and the drives plugged into them.

Standard library only (`drive` needs Debian's python3-cryptography as well), because the
demonstration runs on them too, with a bare python3. The pytest side is in `fixtures`, `limits`
and `leaks`.

- `image`: Debian disks, built once and cached; the package installed into them.
- `disk`: one ext4 disk: copied, looked into and changed while nothing runs on it.
- `container`: a disk booted by systemd-nspawn, about a second a boot.
- `vm`: a disk booted by QEMU, with drives to plug in and pull out.
- `inside`: what one asks of either, by commands in it.
- `drive`: the image of a USB drive with a LUKS container in it.
"""
