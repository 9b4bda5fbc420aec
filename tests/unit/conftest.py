"""Hypothesis, on machines that have other things to do."""

from hypothesis import settings

# A slow example is one that the machine was busy during; the tier has limits of its own.
settings.register_profile("immud", deadline=None)
settings.load_profile("immud")
