#!/usr/bin/env bash
# The checks that need a GPU, the most valuable first. Useful within minutes; what has finished is not run again.
#
#     bash benchmarks/gpu.sh [--list]
#
# OUT: folder of the outputs, results/gpu by default. A check's output is NAME.txt while and after it runs; `done`
#     names the finished ones. Delete a line to run a check again.
# BUNDLE: a model, for the check of answers. Without one, the demo's in results/demo.
# PYTHON: the environment's Python, .venv/bin/python by default.
# LIMIT_S: most seconds of one check, 240 by default.
# --list: print the checks in their order and run nothing.
set -u -o pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/gpu} PYTHON=${PYTHON:-.venv/bin/python} LIMIT_S=${LIMIT_S:-240}

checks() { # name, then the command
  cat <<END
train_1b_24       benchmarks/speed/finetune.py --size 1B --questions 6 --batch 24
train_1b_96       benchmarks/speed/finetune.py --size 1B --questions 6 --batch 96 --trials 96
tokenizer         benchmarks/speed/tokenizer.py --most 4 --pairs 1
answers_1b        benchmarks/speed/answering.py --size 1B ${BUNDLE:+--bundle $BUNDLE}
gemma_270m_step   benchmarks/speed/gemma_step.py --size 270M
gemma_1b_step     benchmarks/speed/gemma_step.py --size 1B
memory            benchmarks/speed/gpu_memory.py
attention_tests   -m pytest -q -p no:cacheprovider tests/language/test_language.py tests/answering/test_scoring.py
END
}

if [ "${1:-}" = --list ]; then
  checks
  exit
fi
if ! card=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2> /dev/null); then
  echo "gpu.sh: PyTorch of $PYTHON finds no GPU, so nothing is run" >&2
  exit 2
fi
mkdir -p "$OUT" && touch "$OUT/done"
echo "$card" | tee "$OUT/card.txt"
failed=0
while read -r name command; do
  if grep -qx "$name" "$OUT/done"; then
    echo "$name: finished before"
    continue
  fi
  began=$SECONDS
  # shellcheck disable=SC2086  # the command's words are separate
  if timeout "$LIMIT_S" "$PYTHON" $command > "$OUT/$name.txt" 2>&1 < /dev/null; then
    echo "$name" >> "$OUT/done"
    echo "$name: $((SECONDS - began)) s: $(tail -n 1 "$OUT/$name.txt")"
  else
    echo "$name: exit code $? after $((SECONDS - began)) s, see $OUT/$name.txt"
    failed=1
  fi
done < <(checks)
exit $failed
