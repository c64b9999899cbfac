#!/bin/sh
# What exit status and which words test_main.cc makes of tests that pass, fail and skip.
sample=$1
failures=0

expect() {  # expect STATUS FILTER: the tests that match FILTER end with STATUS
  output=$("$sample" --gtest_filter="$2")
  status=$?
  if [ "$status" != "$1" ]; then
    echo "$2: exit status $status instead of $1"
    failures=$((failures + 1))
  fi
}

says() {  # says TEXT: the last run printed it
  case $output in
    *"$1"*) ;;
    *) echo "does not say: $1"; failures=$((failures + 1)) ;;
  esac
}

expect 77 '*Skips*'
says 'skipped because: this machine has no wings'
says 'skipped because: this machine has no gills'
expect 0 '*Passes:*Wings'
says 'skipped because: this machine has no wings'
expect 0 '*Passes'
expect 1 '*Fails:*Skips*'
expect 1 '*Fails'
[ "$failures" = 0 ]
