"""From params.yaml to the grid of jobs, their paths and digests, and the plan of the report. No torch, no numpy."""
