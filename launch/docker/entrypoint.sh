#!/bin/bash
# Locked memory without limit (libtpu pins its buffers) and many open files, as far as the host allows either.
ulimit -l unlimited 2>/dev/null || true
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
# exec: the program becomes process 1 of the container, so that SIGTERM reaches it.
exec "$@"
