"""Cartesian multi-coil k-space: files, masks, coil maps, simulation, first reconstructions. Knows no network."""
