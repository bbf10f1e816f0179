"""The same work in other people's frameworks; they run in their own environment (see `setup.sh`)."""
