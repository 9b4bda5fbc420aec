"""What is run in a virtual machine to take the time there; see `VM.stopwatch`."""

# Prints, as one line of JSON, when the kernel announced a block device (`add`, or `remove`) and
# when the wish was first met (`mounted`, `gone`, `nothing`): CLOCK_MONOTONIC, seconds. Nothing is
# left when the mount is gone and there is neither a mapping nor a loop device with a file.
STOPWATCH = """
import glob, json, os, select, socket, sys, time
where, wish, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)  # NETLINK_KOBJECT_UEVENT
events.bind((0, 1))
table = open("/proc/self/mountinfo")
poll = select.poll()
poll.register(events, select.POLLIN)
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
    if events.fileno() in ready:
        fields = events.recv(16384).decode(errors="replace").split(chr(0))
        if "SUBSYSTEM=block" in fields:
            seen.setdefault(fields[0].partition("@")[0], now)
    if (table.fileno() in ready or wish == "nothing") and met():
        seen[wish] = time.monotonic()
os.unlink("/run/stopwatch")
print(json.dumps(seen))
"""
