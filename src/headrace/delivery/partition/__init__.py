"""The delivery of one partition: the worker and all that it decides with. Read `worker` first."""
