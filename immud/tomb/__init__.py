"""The tomb: an encrypted drive hooked into the tree while it is plugged in, and only then.

`machine` decides and touches nothing; `opening`, `closing` and the packages below act, `works`
hands each action to one of them; `owner` has one task for each volume, and `tombs` has them all.
"""
