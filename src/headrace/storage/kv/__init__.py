"""One transaction: ordered maps that change all together or not at all."""
