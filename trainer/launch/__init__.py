"""Where the worker runs. `local` is this machine."""
