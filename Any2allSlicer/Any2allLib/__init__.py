"""What the Any2all module of 3D Slicer knows without Qt, vtk or slicer: the server's language, jobs, the form.

Standard library only, Python 3.9, no threads: everything that takes time is advanced by ``tick`` from a GUI timer.
"""
