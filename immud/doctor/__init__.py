"""`immud doctor`: everything in the way of an immutable system on this machine.

`look` gathers what there is to know, `judge` is pure and says what breaks, why and what
mends it, `mend` performs the few things that are safe to do unasked.
"""
