"""From splits to runs: the loop, checkpoints, snapshots."""
