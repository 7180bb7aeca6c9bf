#!/bin/sh
# wordcount.sh [FILE...]: lines, words and the most frequent words of the files, or of standard input.
# TOP=N shows N words instead of 5. Case and punctuation do not matter.
set -eu

text=$(cat -- "$@")
words=$(printf '%s\n' "$text" | tr '[:upper:]' '[:lower:]' | tr -cs "[:alnum:]'" '\n' | sed '/^$/d')

if [ -z "$words" ]; then
    echo "wordcount.sh: no words to count" >&2
    exit 1
fi

echo "lines $(printf '%s\n' "$text" | awk 'END { print NR }')"
echo "words $(printf '%s\n' "$words" | awk 'END { print NR }')"
echo "distinct $(printf '%s\n' "$words" | sort -u | awk 'END { print NR }')"

# Most frequent first, equally frequent ones by the alphabet: the same text gives the same report everywhere.
printf '%s\n' "$words" | sort | uniq -c | LC_ALL=C sort -k1,1nr -k2 |
    awk -v top="${TOP:-5}" 'NR <= top { print "top " $2 " " $1 }'
