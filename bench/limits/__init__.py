"""Small programs that measure what the machine can do: forks, pipes, fsyncs, and the bare road."""
