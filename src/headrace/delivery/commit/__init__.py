"""From the effects of a run to one change of the store."""
