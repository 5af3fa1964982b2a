"""One module for each contender: a small program, run by the Python of an environment of its own.

Each speaks the lines of :mod:`benchmarks.contenders.protocol` on its standard streams.
"""
