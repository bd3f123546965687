#!/bin/sh
# Enlarge a folder of photos, try what failed once more, and stop on real errors.
#
#     upscale_folder.sh photos photos_x3 [more options of srcli upscale]
#
# Run it again after a crash or a power cut: it does what is left. Exits with 0 if every photo is
# enlarged, 1 if some failed twice (their names are in OUTPUT.failed.txt), or srcli's own code.
# SRCLI names another command than the installed one.
set -u

if [ $# -lt 2 ]; then
    echo "usage: $0 FOLDER OUTPUT [OPTION...]" >&2
    exit 2
fi
folder=$1
output=$2
shift 2
failed="$output.failed.txt"

run() {
    # No quotes around the command: it may be several words.
    ${SRCLI:-srcli} upscale "$@" --output "$output" --recursive --skip-existing \
        --quiet --failed-list "$failed"
}

run "$folder" "$@"
code=$?
if [ "$code" -eq 1 ] && [ -s "$failed" ]; then
    echo "$(wc -l < "$failed") failed; trying again" >&2
    run "@$failed" "$@"
    code=$?
fi

case $code in
    0)
        rm -f "$failed"
        echo "all of $folder is in $output"
        ;;
    1) echo "some photos failed twice; they are listed in $failed" >&2 ;;
    130 | 143) echo "stopped; run it again to continue" >&2 ;;
    *) echo "srcli cannot work like this (exit code $code); see its message above" >&2 ;;
esac
exit "$code"
