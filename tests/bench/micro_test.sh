#!/bin/sh
# Runs each benchmark of a program for a moment: it must end, and none of them may report an error.
# A kernel that refuses io_uring is a reason to skip (77).
#
#   micro_test.sh PROGRAM

output=$("$1" --benchmark_min_time=0.001 2>&1) || {
  echo "$output"
  exit 1
}
errors=$(echo "$output" | grep "ERROR OCCURRED")
if echo "$errors" | grep -v "no io_uring" | grep -q .; then
  echo "$errors"
  exit 1
fi
if [ -n "$errors" ]; then
  echo "$errors"
  exit 77
fi
echo "$output" | grep -q " ns " || {
  echo "measured nothing: $output"
  exit 1
}
