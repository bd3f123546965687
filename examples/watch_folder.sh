#!/bin/sh
# Enlarge whatever comes into a folder, as long as this runs.
#
#     watch_folder.sh incoming enlarged [more options of srcli upscale]
#
# It looks every SECONDS_BETWEEN seconds (10). A file that is still being copied fails, is named on
# stderr and tried again at the next look. Several may watch one folder, on several machines too:
# each file is done by one of them. SRCLI names another command than the installed one.
set -u

if [ $# -lt 2 ]; then
    echo "usage: $0 FOLDER OUTPUT [OPTION...]" >&2
    exit 2
fi
folder=$1
output=$2
shift 2

while :; do
    # No quotes around the command: it may be several words.
    ${SRCLI:-srcli} upscale "$folder" "$@" --output "$output" --recursive --skip-existing --json
    code=$?
    case $code in
        0 | 1 | 3) sleep "${SECONDS_BETWEEN:-10}" ;; # done, a file failed, nothing there yet
        *) exit "$code" ;; # stopped, or it can never work
    esac
done
