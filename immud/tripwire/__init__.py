"""The tripwire: what is seen now, held against what this boot left, and said when it differs.

`rule` decides, purely; `book` keeps what was found until it is mended; `places` and `elsewhere`
look; `guard` sees to it that somebody looks, at the right moments.
"""
