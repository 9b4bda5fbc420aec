"""The figures: immud beside what a system administrator would use instead, in one run.

- `figures`: taking turns, medians, ratios and the verdict; pure.
- `command`: the command line, and where the figures go.
- `boot`: unit start to READY=1, in a container.
- `vm`: local-fs.target and multi-user.target, in a virtual machine.
- `tomb`: from plugged in to mounted, from pulled out to nothing left.
- `flood`: what one of many uevents costs the daemon.
- `delay`: how long a tomb takes to open while something else goes on, for the next two.
- `injected`: the same drive while a thousand uevents are injected.
- `crowd`: the same drive while a thousand others appear.
- `memory`: what an idle daemon holds, and how often it wakes up.
- `lease`: what a lease adds to root's command.
- `tripwire`: one change of the mount table, with few mounts and with ten thousand.
"""
