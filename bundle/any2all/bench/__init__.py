"""``python -m any2all.bench``: what the presets, the samplers and the peers cost, as ratios within one run."""
