"""What the Snakefile and dvc.yaml call: the plan of a run, the sweep of results/, Slurm, the image, DVC's stages."""
