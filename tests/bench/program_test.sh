#!/bin/sh
# The program's manners. Its exit status is 0 when it did what was asked, 2 for wrong options, and 1
# when it cannot measure. A refused io_uring is told in one line, and before anything is measured.
#
#   program_test.sh RINGMASTER_BENCH WITHOUT_IO_URING

bench=$1
without_io_uring=$2
failures=0

# expect STATUS COMMAND…: runs it; its output is in $output afterwards.
expect() {
  wanted=$1
  shift
  output=$("$@" 2>&1)
  status=$?
  if [ "$status" -ne "$wanted" ]; then
    echo "exit status $status instead of $wanted: $*"
    echo "$output"
    failures=$((failures + 1))
  fi
}

contains() {
  case $output in
    *"$1"*) ;;
    *)
      echo "lacks \"$1\": $output"
      failures=$((failures + 1))
      ;;
  esac
}

expect 0 "$bench" --help
contains demo
expect 0 "$bench" demo --help
contains --policies
contains stay,saturated,slow-worker,light
expect 0 "$bench" --version
contains "ringmaster-bench 0."
expect 2 "$bench"
expect 2 "$bench" demo --no-such-option
expect 2 "$bench" demo --seconds soon
expect 2 "$bench" demo --seconds 0
expect 2 "$bench" demo --repetitions 0
expect 2 "$bench" demo --workers 0
expect 2 "$bench" demo --transport pigeon
expect 2 "$bench" demo --policies nonsense
contains least-loaded
expect 2 "$bench" demo --policies leest-loaded
contains "did you mean \"least-loaded\"?"
expect 2 "$bench" demo --workloads lihgt
contains "did you mean light?"
expect 2 "$bench" demo --workloads nonsense
contains slow-worker

expect 0 "$bench" compare --help
for option in --workload --transport --mechanisms --workers --repetitions --seconds --rate --json \
    --report --list --quick --pin --seed; do
  contains "$option"
done
expect 0 "$bench" compare --list
contains epoll-exclusive
contains ringmaster:least-loaded
contains uring-oneshot-direct-each
contains ringmaster:least-loaded/poll-accept/direct/thread
contains slow-worker
expect 2 "$bench" compare --no-such-option
contains "--help"
expect 2 "$bench" compare --worklaod light
contains "did you mean --workload?"
expect 2 "$bench" compare --workload lihgt
contains "did you mean light?"
expect 2 "$bench" compare --mechanisms epol-exclusive
contains "did you mean epoll-exclusive?"
expect 2 "$bench" compare --mechanisms uring-oneshot-direkt-each
contains "did you mean uring-oneshot-direct-each?"
expect 2 "$bench" compare --mechanisms ""
expect 2 "$bench" compare --repetitions 0
expect 2 "$bench" compare --workers 0
expect 2 "$bench" compare --rate 0
expect 2 "$bench" compare --rate inf
expect 2 "$bench" compare --rate 1e9
expect 2 "$bench" compare --seconds 0
expect 2 "$bench" compare --transport pigeon
expect 2 "$bench" compare --list --transport pigeon
for command in demo compare; do
  for seed in -1 1.5 18446744073709551616 99999999999999999999 ""; do
    expect 2 "$bench" $command --seed "$seed"
  done
  contains "whole number"
  expect 2 "$bench" $command --json ""
  expect 2 "$bench" $command --report ""
  contains "empty"
done
expect 2 "$bench" comapre
contains "did you mean compare?"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
expect 0 "$bench" compare --quick --seconds 0.1 --workload light --mechanisms epoll-exclusive \
  --seed 7 --json "$scratch/figures.json" --report "$scratch/report.html"
contains "not for quoting"
contains "seed 7"
for file in figures.json report.html; do
  if [ ! -s "$scratch/$file" ]; then
    echo "wrote no $file"
    failures=$((failures + 1))
  fi
done
expect 1 "$bench" compare --quick --seconds 0.1 --workload light --mechanisms epoll-exclusive \
  --json "$scratch"
contains "cannot write"
expect 1 "$bench" compare --quick --seconds 0.1 --workload light --mechanisms epoll-exclusive \
  --report "$scratch/new/report.html"
contains "there is no directory $scratch/new; create it first"

expect 1 "$bench" compare --quick --workload light --mechanisms reuseport --transport unix
contains "nothing can be measured"
expect 1 "$bench" compare --quick --workload flood --mechanisms blocking-accept
contains "one connection at a time"
expect 1 "$bench" compare --quick --workload emfile --mechanisms direct
contains "nothing can be measured"

for command in demo compare; do
  expect 2 "$bench" $command --json "$scratch/same" --report "$scratch/new/../same"
  contains "name two files"
done

expect 0 "$bench" compare --quick --seconds 0.1 --workload "light, light" --rate 500 \
  --mechanisms epoll-exclusive --repetitions 1 --json "$scratch/spaces.json"
contains "--rate does not apply to light:"
output=$(cat "$scratch/spaces.json")
contains "--workload light,light "
expect 0 "$bench" demo --seconds 0.1 --repetitions 1 --policies "exclusive" --workloads "light, order"

# Too few descriptors for one workload: the others go on; with no other, nothing was measured.
limited() {
  descriptors=$1
  shift
  sh -c "ulimit -n $descriptors && exec \"\$@\"" limited "$@"
}
expect 0 limited 256 "$bench" compare --quick --seconds 0.1 --workload light,flood \
  --mechanisms epoll-exclusive --repetitions 1
contains "flood cannot be measured here"
contains "did not run"
contains "ulimit -n 448"
expect 1 limited 256 "$bench" compare --quick --seconds 0.1 --workload flood \
  --mechanisms epoll-exclusive --repetitions 1
contains "nothing can be measured"

# Whatever becomes of the standard output, the files are written.
quick() {
  "$bench" compare --quick --seconds 0.1 --workload light --mechanisms epoll-exclusive \
    --repetitions 1 --json "$scratch/$1.json" --report "$scratch/$1.html"
}
to_full() { quick full >/dev/full; }
to_nobody() { quick nobody >&-; }
to_a_reader_that_leaves() {
  {
    quick left
    echo $? >"$scratch/left.status"
  } | true
  return "$(cat "$scratch/left.status")"
}
list_to_full() { "$bench" compare --list >/dev/full; }
expect 1 to_full
contains "standard output"
expect 1 to_nobody
expect 1 to_a_reader_that_leaves
expect 1 list_to_full
for file in full nobody left; do
  if [ ! -s "$scratch/$file.json" ] || [ ! -s "$scratch/$file.html" ]; then
    echo "wrote no $file.json or no $file.html"
    failures=$((failures + 1))
  fi
done
# One that cannot be written leaves the other, and nothing of its own.
expect 1 "$bench" compare --quick --seconds 0.1 --workload light --mechanisms epoll-exclusive \
  --repetitions 1 --json /dev/full --report "$scratch/other.html"
contains "cannot write /dev/full"
contains "other.html"
if [ ! -s "$scratch/other.html" ]; then
  echo "wrote no other.html"
  failures=$((failures + 1))
fi

# 77: this machine cannot filter system calls.
"$without_io_uring" EPERM true
if [ $? -ne 77 ]; then
  expect 1 "$without_io_uring" EPERM "$bench" demo --seconds 0.1 --repetitions 1
  contains EPERM
  expect 1 "$without_io_uring" ENOSYS "$bench" demo --seconds 0.1 --repetitions 1
  contains ENOSYS
fi

exit $((failures > 0))
