"""What is run in a virtual machine to take the time there; see `Guest.stopwatch`."""

# Prints, as one line of JSON, when the kernel announced a drive (`add`, or `remove`), when udev
# told of it (`told`) and when the wish was first met (`mounted`, `gone`, `nothing`):
# CLOCK_MONOTONIC, seconds. Nothing is left when the mount is gone and there is neither a mapping
# nor a loop device with a file. Of udev's messages the kernel lets only those through that have
# the tag of systemd's, as every block device that udev knows has it, and no forged one here.
STOPWATCH = """
import glob, json, os, re, select, socket, sys, time
import pyudev
where, wish, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
monitors = {source: pyudev.Monitor.from_netlink(pyudev.Context(), source)
            for source in ("kernel", "udev")}
monitors["udev"].filter_by_tag("systemd")
poll = select.poll()
events = {}
for source, monitor in monitors.items():
    monitor.filter_by("block")
    monitor.set_receive_buffer_size(64 << 20)
    monitor.start()
    poll.register(monitor.fileno(), select.POLLIN)
    events[monitor.fileno()] = source
table = open("/proc/self/mountinfo")
poll.register(table, select.POLLERR | select.POLLPRI)
def met():
    table.seek(0)
    there = any(line.split()[4] == where for line in table)
    if wish == "nothing":
        held = glob.glob("/sys/block/dm-*") + glob.glob("/sys/block/loop*/loop/backing_file")
        return not there and not held and "remove" in seen
    return there == (wish == "mounted")
seen, until = {}, time.monotonic() + limit
# No event tells when a device has left /sys: that is looked for at intervals, seldom enough.
pause = 20 if wish == "nothing" else 1000 * limit
open("/run/stopwatch", "w").close()
while wish not in seen and time.monotonic() < until:
    ready = [fd for fd, _ in poll.poll(pause)]
    now = time.monotonic()
    for fd in events.keys() & set(ready):
        data = os.read(fd, 16384)
        if re.search(rb"DEVNAME=(/dev/)?sd[a-z]\\0", data):
            action = re.search(rb"ACTION=([a-z]*)", data)[1].decode()
            seen.setdefault(action if events[fd] == "kernel" else "told", now)
    if (table.fileno() in ready or wish == "nothing") and met():
        seen[wish] = time.monotonic()
os.unlink("/run/stopwatch")
print(json.dumps(seen))
"""
