"""The bench suite: our figures beside the physical limits and the peers, measured in turns.

`python -m bench` runs the metrics of `bench/rows.py` and prints ratios; absolute figures are for
information, since machines differ. Every program is its own process that prints its figures as one
line of JSON. Nothing here is imported by the platform.
"""
