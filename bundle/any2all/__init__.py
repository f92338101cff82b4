"""Any2all: fill in the missing brain images of a study with one diffusion prior."""

__version__ = "0.6.0"
