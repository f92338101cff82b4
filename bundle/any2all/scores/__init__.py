"""Metrics, baselines, statistics and their words: what the pipeline, training and evaluation measure by alike."""
