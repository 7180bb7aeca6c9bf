"""What the service is about, without any of the libraries it is built on."""
