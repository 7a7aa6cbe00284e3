#!/bin/sh
# Owns: the list of the GPU's test programs, and running them one after another. Needs a driver, and neither Node nor a
# compiler: it is copied to a GPU machine together with the programs. Must never call a run passed that printed no count.
#
#   run.sh [--bench] [--no-sanitizer]     everything; exit code 1 if anything failed
#   run.sh --rows                         no tests: the rows of docs/bench, one file of them for each model
#   run.sh --list                         the names of the programs
#
# Environment: PROGRAMS, NANO_DIR and GOLDEN_DIR, the folders of the programs, of the embedded model and of the goldens;
# without them the folders cuda, nano and golden beside this script, as `npm run test:gpu -- --build-only` leaves them.
# ROWS is the folder where rows go, without it rows beside this script; `ringside bench --append --rows FILE` adds them.

# What needs no card comes first, then kernels, then the whole backend.
kernel_tests="read_products_test read_mixture_test read_rows_test read_attention_test step_test"
tests="pack_test load_test $kernel_tests backend_test small_card_test session_test session_failure_test nano_test engine_test align_test"
bench_tests="$kernel_tests load_test backend_test small_card_test session_test"
test_limit_s=120
sanitizer_limit_s=90
bench_limit_s=120

# The rows of docs/bench: a file's name, and what the bench measures for it. Flash has as many weights as fit one card.
rows_of() {
  case $1 in
    mini-q8) echo "--shape mini --quant q8 --prompt 512,4096,131072 --sequences 1,8,32 --depths 0" ;;
    mini-q8-deep) echo "--shape mini --quant q8 --prompt 4096 --depths 32768,131072" ;;
    mini-q4) echo "--shape mini --quant q4 --head 4 --prompt 512,4096,131072 --sequences 1,8,32 --depths 0" ;;
    mini-q4-deep) echo "--shape mini --quant q4 --head 4 --prompt 4096 --depths 32768,131072" ;;
    mini-q4-head8) echo "--shape mini --quant q4 --prompt 4096 --depths 0" ;;
    flash-q4) echo "--shape flash --quant q4 --prompt 4096 --depths 0,32768" ;;
  esac
}
rows_names="mini-q8 mini-q8-deep mini-q4 mini-q4-deep mini-q4-head8 flash-q4"

# The sanitizer makes programs up to some hundred times slower, so of some it takes the tests whose names contain these
# words: those that go through every kernel on small sizes.
sanitized_part() {
  case $1.$2 in
    memcheck.step_test) echo "small model" ;;
    racecheck.read_products_test) echo "product" ;;
    racecheck.read_mixture_test) echo "is the weighted" ;;
    racecheck.read_attention_test) echo "is the " ;;
    racecheck.step_test) echo "other small" ;;
  esac
}

bench=no
only_rows=no
sanitizer=yes
for argument in "$@"; do
  case $argument in
    --list) printf '%s\n' $tests; exit 0 ;;
    --bench) bench=yes ;;
    --no-sanitizer) sanitizer=no ;;
    --rows) only_rows=yes ;;
    *) echo "run.sh: unknown option $argument" >&2; exit 2 ;;
  esac
done

here=$(cd "$(dirname "$0")" && pwd) || exit 2
programs=${PROGRAMS:-$here/cuda}
export NANO_DIR="${NANO_DIR:-$here/nano}" GOLDEN_DIR="${GOLDEN_DIR:-$here/golden}"
reports=$(mktemp -d) || exit 2
trap 'rm -rf "$reports"' EXIT
failures=""

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# row TITLE RUN LIMIT COMMAND...: runs the command and prints its line of the table.
row() {
  title=$1 run=$2 limit=$3
  shift 3
  report="$reports/$title.$run"
  begin=$(milliseconds)
  timeout -k 5 "$limit" "$@" >"$report" 2>&1
  code=$?
  took=$(($(milliseconds) - begin))
  counts=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$report" | tail -n 1)
  verdict=ok
  if [ $code -eq 124 ]; then verdict="over its limit of $limit s"
  elif [ $code -ne 0 ]; then verdict="exit code $code"
  elif [ -z "$counts" ]; then verdict="no test ran"
  fi
  printf '%-22s %-10s %6s %6s %8s s  %s\n' "$title" "$run" "${counts% *}" "${counts#* }" \
    "$((took / 1000)).$(printf %03d $((took % 1000)))" "$verdict"
  [ "$verdict" = ok ] || failures="$failures $title.$run"
}

# Needs about 70 GB of the card's memory for the last file.
measure_rows() {
  rows=${ROWS:-$here/rows}
  mkdir -p "$rows" || exit 2
  code=0
  for name in $rows_names; do
    echo "$name: bench --backend cuda $(rows_of "$name")" >&2
    # shellcheck disable=SC2046 # what rows_of says are several words
    timeout -k 5 "$bench_limit_s" "$programs/ringside-tool" bench --backend cuda --json --generate 64 --reps 3 \
      $(rows_of "$name") >"$rows/$name.json" || { code=1; rm "$rows/$name.json"; }
  done
  exit $code
}
[ $only_rows = no ] || measure_rows

printf '%-22s %-10s %6s %6s %10s  %s\n' test run passed failed time ""
whole_begin=$(milliseconds)
for test in $tests; do row "$test" plain $test_limit_s "$programs/cuda_$test"; done

compute_sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ $sanitizer = no ]; then
  echo "memcheck and racecheck: left out, as asked"
elif [ -z "$compute_sanitizer" ]; then
  echo "memcheck and racecheck: not run, there is no compute-sanitizer"
else
  for tool in memcheck racecheck; do
    for test in $kernel_tests; do
      part=$(sanitized_part $tool "$test")
      row "$test" $tool $sanitizer_limit_s "$compute_sanitizer" --tool $tool --error-exitcode 9 \
        "$programs/cuda_$test" ${part:+"$part"}
    done
  done
fi
echo "All took $((($(milliseconds) - whole_begin) / 1000)) s."

for failed in $failures; do
  printf '\n== %s\n' "$failed"
  grep -v '^ok ' "$reports/$failed" | tail -n 40
done

if [ $bench = yes ]; then
  for test in $bench_tests; do
    printf '\n== %s --bench\n' "$test"
    row "$test" bench $bench_limit_s "$programs/cuda_$test" --bench >"$reports/line"
    grep -v '^ok ' "$reports/$test.bench"
    grep -q ' ok$' "$reports/line" || cat "$reports/line"
  done
fi
[ -z "$failures" ]
