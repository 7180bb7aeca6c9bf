"""Makes a work tree of a git repository, with the host's ``git``.

A repository and its server are not trusted: git runs with an environment and a configuration made here
alone, in which nothing that comes from outside (hooks, filters, helpers, transports) can start a program. Of
the host's own settings only those of ssh count (keys, known hosts), since ssh looks for them itself.

``checkout`` is the way in. ``session`` has what all processes of one checkout share, ``remote`` decides where
git may go, and ``program`` runs it. ``refs`` and ``fetch`` get a commit, ``submodules`` its submodules.
"""

from reactorcide.sources.git.checkout import GitCheckout, GitFolders, check_out_folders, checkout
from reactorcide.sources.git.session import GitLimits

__all__ = ["GitCheckout", "GitFolders", "GitLimits", "check_out_folders", "checkout"]
