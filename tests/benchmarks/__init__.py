"""The figures: immud beside what a system administrator would use instead, in one run.

- `figures`: taking turns, medians, ratios and the verdict; pure.
- `boot`: unit start to READY=1, in a container.
- `vm`: local-fs.target and multi-user.target, in a virtual machine.
- `tomb`: from plugged in to mounted, from pulled out to nothing left.
- `memory`: what an idle daemon holds, and how often it wakes up.
"""
