"""The edge: sockets, TLS and HTTP in front of the WSGI application, in a worker of gunicorn."""
