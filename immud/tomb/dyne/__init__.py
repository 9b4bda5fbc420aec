"""Tombs of Dyne's tomb(1): their keys, GnuPG, bind-hooks."""
