"""`python -m headrace.simulation`: plays seeds and says which broke a promise."""

from __future__ import annotations

from headrace.simulation.campaign import main

if __name__ == "__main__":
    raise SystemExit(main())
