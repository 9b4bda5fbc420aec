"""The tomb: an encrypted drive hooked into the tree while it is plugged in, and only then.

`match` and `machine` decide and touch nothing; `volume`, `dm`, `holders` and
`loops` act; `owner` has one task for each volume, and `tombs` has them all.
"""
