"""How a stage is run: waves, attempts, progress, telemetry."""
