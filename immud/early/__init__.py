"""Phase 1, on the boot's critical path: os, sys and ctypes, nothing heavier.

Everything imported from here runs before the machine is up; a test asserts on
`sys.modules` that nothing else crept in. The rest of immud may import these
modules; they import nothing of it, except where a changed configuration has to
be compiled on the spot.
"""
