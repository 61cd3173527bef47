#!/usr/bin/env bash
# Builds everything and runs all tests, among them a small quickstart from images to a fitted law.
#
#   ./launch/test.sh               everything
#   ./launch/test.sh -L fast       arguments go to ctest: here only the tests without torch
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/setup.sh
cmake --preset release >/dev/null
cmake --build build/release
exec ctest --test-dir build/release --output-on-failure -j 2 "$@"
