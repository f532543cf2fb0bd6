"""Hostile files and options, by the thousand: `make fuzz`. Each kind has a file whose `prepare(folder)` gives a case.

A case takes a random generator and nothing else, so its number and the seed bring it back.
"""
