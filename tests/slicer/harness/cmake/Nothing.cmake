# A real Slicer puts its settings and packaging here; nothing of them is needed to check file lists.
