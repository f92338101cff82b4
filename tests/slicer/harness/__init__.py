"""A stand-in for the Slicer application, in which a scripted module runs without Slicer.

MRML, its logics and ``slicer.util`` are the real ones (PyPI's slicer-core). Qt is the real Qt (PySide6) behind a strict
look-alike of PythonQt. Widgets of CTK and qMRML are small re-creations with the names of their real headers.
Where the real application is lenient the harness is strict: what passes here was not run in Slicer, but it uses only
names that Slicer has.
"""
