"""The isolation of an instance: limits, mounts, Landlock, seccomp."""
