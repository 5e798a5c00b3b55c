"""The training engine: losses, optimisers, schedules, one step, the loop, checkpoints."""
