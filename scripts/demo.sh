#!/usr/bin/env bash
# Counts the words of a real text, kills the job twice with kill -9 in mid-flight, starts it again with the same
# command, and proves the result right. Called by `make demo` with the directory of the built programs.
set -euo pipefail
export LC_ALL=C

programs=$1
size_mb=${DEMO_MB:-50}
# Nine million words are to last until the job has been killed twice, however fast the machine is.
words_per_second=2000000
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-demo
work=$(mktemp -d)
job_pid= watcher_pid=

clean_up() {
    for pid in $job_pid $watcher_pid; do kill -9 "$pid" 2> /dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { printf '\nthe demo failed: %s\n' "$*" >&2; exit 1; }

# The King James Bible from two Debian packages, which are unpacked and not installed.
download_text() {
    local scratch
    scratch=$(mktemp -d)
    (
        cd "$scratch"
        apt-get -qq -o APT::Sandbox::User=root download bible-kjv bible-kjv-text
        for package in *.deb; do dpkg-deb -x "$package" tree; done
        tree/usr/bin/bible -l80 -p tree/usr/lib 'gen1:1-rev22:21' > text
    ) > /dev/null 2>&1 && [ -s "$scratch/text" ] && mv "$scratch/text" "$cache/text.txt"
    local status=$?
    rm -rf "$scratch"
    return $status
}

find_text() {
    mkdir -p "$cache"
    if [ -s "$cache/text.txt" ]; then return; fi
    if download_text; then return; fi
    if [ "$(id -u)" = 0 ] && apt-get -qq update > /dev/null 2>&1 && download_text; then return; fi
    echo "the packages bible-kjv and bible-kjv-text are out of reach: taking the licence texts of this machine"
    # The licence of this project is there in any case. What is not ASCII may be in any encoding.
    { cat /usr/share/common-licenses/* /usr/share/licenses/*/* /usr/share/doc/*/copyright LICENSE 2> /dev/null || true; } \
        | tr -cd '\n -~' > "$cache/text.txt"
}

# The text again and again, until the input is large enough.
write_input() {
    local copies=$((size_mb * 1000000 / $(stat -c %s "$cache/text.txt") + 1))
    for ((copy = 0; copy < copies; copy++)); do cat "$cache/text.txt"; done > "$work/input.txt"
}

start_job() {
    "$programs/examples/word_count" --input "$work/input.txt" --output "$work/output" \
        --checkpoints "$work/checkpoints" --interval 500ms --parallelism 2 --rest off \
        --set "source.records-per-second=$words_per_second" &
    job_pid=$!
}

# The attempts that have published something: the fourth part of a file's name.
attempts() {
    { ls "$work/output" 2> /dev/null || true; } | { grep '^part-' || true; } | cut -d- -f4 | sort -u | wc -l
}

# Waits until the running attempt has published the records of a checkpoint of its own, lets more records flow, kills.
kill_in_mid_flight() {
    local before=$1
    until [ "$(attempts)" -gt "$before" ]; do
        kill -0 "$job_pid" 2> /dev/null || fail "the job ended before it could be killed: set DEMO_MB to more than $size_mb"
        sleep 0.02
    done
    sleep 0.3
    kill -0 "$job_pid" 2> /dev/null || fail "the job ended before it could be killed: set DEMO_MB to more than $size_mb"
    kill -9 "$job_pid"
    { wait "$job_pid" || true; } 2> /dev/null
    job_pid=
    echo "killed with kill -9; $(cat "$work"/output/part-* | wc -l) records are published"
}

count_words() { tr -cs 'A-Za-z' '\n' | tr 'A-Z' 'a-z' | sort | sed '/^$/d' | uniq -c; }

find_text
write_input
say "the input: $(stat -c %s "$work/input.txt") bytes of text"

say "a watcher starts to read the published files, again and again"
"$programs/watch_parts" "$work/output" "$work/stop-watching" &
watcher_pid=$!

say "the job starts: every word of the text becomes a line word<TAB>k"
start_job
kill_in_mid_flight 0

say "the same command again"
start_job
kill_in_mid_flight 1

say "and again, to the end"
start_job
wait "$job_pid" || fail "the job ended with status $?"
job_pid=

say "the watcher"
touch "$work/stop-watching"
wait "$watcher_pid" || fail "the watcher saw a broken promise"
watcher_pid=

say "the counts of tr | sort | uniq -c, of the input and of the published files"
count_words < "$work/input.txt" > "$work/right"
cut -f1 "$work"/output/part-* | count_words > "$work/published"
diff "$work/right" "$work/published" > "$work/difference" || fail "they differ: $(head -3 "$work/difference")"
echo "equal: $(wc -l < "$work/right") different words, $(cat "$work"/output/part-* | wc -l) records"

say "tidegate snapshots"
"$programs/tidegate" snapshots "$work/checkpoints"

say "tidegate verify"
"$programs/tidegate" verify "$work/checkpoints"

cat << 'END'

== what this proved
The job died twice without any warning, between two checkpoints, with records on their way. Each time the same command
took up where the last checkpoint stood. In the end every occurrence of every word was counted once: none was lost,
none was counted twice. A reader of the published files never saw anything else: at each moment the numbers of each
word were exactly 1..m, and what was published once stayed as it was. Every byte under the checkpoint directory is
what was written.
END
