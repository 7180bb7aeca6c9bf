"""Where a job's files come from: a directory of the host, or a git repository.

``roots`` says what may be used, ``git`` makes a work tree of a repository, and ``archive`` turns a
directory into the tar stream that a container takes.
"""
