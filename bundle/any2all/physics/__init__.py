"""Forward models A_m and data-consistency solves. Torch only; knows no files and no network."""
