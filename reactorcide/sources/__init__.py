"""The source files of a job: from a directory of the host, or a git repository.

``roots`` decides which directories may be used, ``git`` checks out a repository, and ``archive`` turns a
directory into a tar stream for a container.
"""
