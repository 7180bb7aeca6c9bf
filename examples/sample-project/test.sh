#!/bin/sh
# Tests wordcount.sh. Prints TAP, also into the file TEST_REPORT, and exits 1 if a test fails.
# BREAK=1 adds a test that is wrong on purpose.
set -eu
cd "$(dirname "$0")"

report=${TEST_REPORT:-/dev/null}
count=0
failures=0
export TOP=5 # the default, whatever the job was given

say() {
    echo "$1" | tee -a "$report"
}

# check NAME EXPECTED ACTUAL
check() {
    count=$((count + 1))
    if [ "$2" = "$3" ]; then
        say "ok $count - $1"
    else
        failures=$((failures + 1))
        say "not ok $count - $1"
        say "# expected: $2"
        say "# actual:   $3"
    fi
}

# value KEY TEXT: what wordcount.sh says about KEY
value() {
    printf '%s' "$2" | sh wordcount.sh | sed -n "s/^$1 //p"
}

check "counts lines" 2 "$(value lines 'one two
three')"
check "counts words" 3 "$(value words 'one two three')"
check "counts a repeated word once as distinct" 2 "$(value distinct 'so so good')"
check "ignores case" "the 3" "$(value top 'The the THE')"
check "ignores punctuation" "stop 2" "$(value top 'Stop! (stop.)')"
check "keeps an apostrophe" "don't 1" "$(value top "don't")"
check "sorts by frequency, then by name" "b 2 a 1 c 1" "$(value top 'c b a b' | tr '\n' ' ' | sed 's/ $//')"
check "shows as many words as asked" 2 "$(echo 'a b c' | TOP=2 sh wordcount.sh | grep -c '^top')"
check "refuses an empty text" 1 "$(sh wordcount.sh </dev/null 2>/dev/null && echo 0 || echo $?)"
check "refuses a missing file" 1 "$(sh wordcount.sh no-such-file 2>/dev/null && echo 0 || echo $?)"
if [ -n "${BREAK:-}" ]; then
    check "counts badly (wrong on purpose: BREAK is set)" 4 "$(value words 'one two three')"
fi

say "1..$count"
[ "$failures" -eq 0 ]
