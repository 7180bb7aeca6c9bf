"""What is installed elsewhere, tried there: the image, its Compose file, the one-file executable, pipx.

``make test-deploy`` runs these. They need root, debootstrap and the package registries.
"""
