#!/usr/bin/env bash
# Everything that is measured on a GPU, in one run of under ten minutes, as one Markdown file:
#
#     bash tests/peers/gpu_bench.sh [OUT.md]
#
# Needs deno on PATH (on a machine without a network, its package cache too) and, for the peer, a Python with torch
# (PYTHON=...; its stage fails alone where there is none). Every stage has a time limit; one that fails is named in the
# file, and the next goes on. Smaller, to see that it runs, on any adapter:
#
#     QUICK=1 bash tests/peers/gpu_bench.sh quick.md
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-gpu_bench.md}
python=${PYTHON:-python3}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
allow=(-R -W -E -S --allow-ffi --allow-run)
keel=(deno run "${allow[@]}" train/cli.ts)
began=$SECONDS
total_limit=${TOTAL_LIMIT:-585}
failed=()

if [ "${QUICK:-}" = 1 ]; then
  shapes=(tiny); samples=1; sizes=(--max-size 256); steps=2; torch=(--markdown --samples 1 --steps 1 --matmul 256)
  checks=(tests/ops/add_test.ts)
else
  shapes=(distilgpt2 gpt2-medium gpt2-124m); samples=5; sizes=(--tiles); steps=10; torch=(--markdown --samples 5 --steps 10)
  checks=(tests/ops tests/golden)
fi

# stage TITLE LIMIT_SECONDS COMMAND...: its output into the file, as it is; the last lines of its errors where it fails.
stage() {
  local title=$1 limit=$2 start=$SECONDS code=0
  local left=$((total_limit - (SECONDS - began)))
  shift 2
  [ "$limit" -gt "$left" ] && limit=$left
  if [ "$limit" -lt 1 ]; then
    printf '\n## %s\n\nFAILED: no time was left\n' "$title" >> "$out"
    failed+=("$title")
    return
  fi
  echo "== $title" >&2
  timeout --kill-after=5 "$limit" "$@" > "$logs/out" 2> "$logs/err" || code=$?
  { printf '\n## %s\n\n`%s`, %s s\n\n' "$title" "$*" "$((SECONDS - start))"
    [ "${raw:-}" = 1 ] && echo '```'
    NO_COLOR=1 sed 's/\x1b\[[0-9;]*m//g' "$logs/out" | if [ "${raw:-}" = 1 ]; then tail -n "${lines:-400}"; else cat; fi
    [ "${raw:-}" = 1 ] && echo '```'
    if [ "$code" -ne 0 ]; then
      [ "$code" -eq 124 ] && echo "FAILED: not done within $limit s" || echo "FAILED: exit code $code"
      printf '\n```\n'; tail -n 15 "$logs/err"; echo '```'
    fi; } >> "$out"
  if [ "$code" -ne 0 ]; then failed+=("$title"); echo "   failed ($code)" >&2; fi
}

{ echo "# GPU run, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  echo
  echo "- commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(deno --version | head -1)"
  echo "- $(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null || echo "no nvidia-smi")"
  echo "- $("$python" -c 'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}")' 2>/dev/null || echo "no torch")"
} > "$out"

stage "What the adapter grants" 30 "${keel[@]}" bench --probe --markdown
raw=1 lines=15 stage "Op checks" 150 deno test --no-check -q "${allow[@]}" "${checks[@]}"
stage "Products and the small step" 90 "${keel[@]}" bench --markdown --samples "$samples" "${sizes[@]}"
for shape in "${shapes[@]}"; do
  stage "Steps: $shape" 60 "${keel[@]}" bench --markdown --shape "$shape" --samples "$samples" --max-size 1
done
stage "PyTorch eager, TF32 off" 120 "$python" tests/peers/torch_bench.py "${shapes[@]/#/--shape=}" "${torch[@]}"
for loss in sft dpo; do
  stage "Profile: ${shapes[-1]}, $loss" 60 "${keel[@]}" profile --markdown --shape "${shapes[-1]}" --loss "$loss" --steps "$steps"
done
stage "Growth" 60 "${keel[@]}" bench --growth --markdown

{ printf '\n## Summary\n\n%s s in all; ' "$((SECONDS - began))"
  if [ "${#failed[@]}" -eq 0 ]; then echo "every stage ran."; else printf 'failed: %s.\n' "$(IFS=';'; echo "${failed[*]}")"; fi
} >> "$out"
echo "wrote $out" >&2
[ "${#failed[@]}" -eq 0 ]
