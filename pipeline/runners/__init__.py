"""Where a stage runs: processes of this machine, Dask, or a Beam job service."""
