"""Phase 1, on the boot's critical path: os, sys and the C half of ctypes, nothing heavier.

Everything imported from here runs before the machine is up; a test asserts on
`sys.modules` that nothing else crept in. The rest of immud may import these
modules; they import nothing of it, except in `main`, when it has to be: where a
changed configuration is compiled on the spot, and where the process goes on as
phase 2 or was started for something else.
"""
