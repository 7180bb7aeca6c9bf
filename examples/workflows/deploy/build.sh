#!/bin/sh
# Build the site: one page that says which version it is.
set -eu
mkdir -p public
echo "<!doctype html><title>Site</title><p>Version $(cat VERSION)</p>" >public/index.html
