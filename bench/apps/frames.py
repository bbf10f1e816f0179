"""The same functions with numpy and pandas imported, as an analyst would have it."""

import numpy as np
import pandas as pd  # type: ignore[import-untyped] # it has no types

from headrace import App

try:
    from empty import declare  # as the platform loads it: from its folder
except ModuleNotFoundError:
    from bench.apps.empty import declare  # as the limits do: from the repository's

app = App("frames")
loaded = (np, pd)
declare(app)
