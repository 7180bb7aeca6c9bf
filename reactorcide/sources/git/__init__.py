"""Checking out git repositories, with the host's ``git``.

A repository and its server are not trusted: git runs only with the environment and the configuration from
here, in which no hook, filter, helper or transport can start a program. Of the host's own settings only
those of ssh count (keys, known hosts), since ssh reads them itself.

``checkout`` is the entry point. ``session`` has the state that all processes of one checkout share,
``remote`` decides where git may connect to, and ``program`` runs it. ``refs`` and ``fetch`` get a commit,
``submodules`` its submodules.
"""

from reactorcide.sources.git.checkout import GitCheckout, GitFolders, check_out_folders, checkout
from reactorcide.sources.git.session import GitLimits

__all__ = ["GitCheckout", "GitFolders", "GitLimits", "check_out_folders", "checkout"]
