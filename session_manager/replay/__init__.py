"""What a replay proves: a notebook's recorded outputs against those of its replay.

::

    normalise    takes out of a text what differs from one run to the next: addresses, timings, chance names
    sameness     whether two texts, or two JSON values, say the same
    images       whether two images show the same
    compare      all of a cell's outputs

All outputs are hostile here: recorded ones came from a file, replayed ones out of a container.
"""
