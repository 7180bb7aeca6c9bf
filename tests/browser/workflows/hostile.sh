# Leave $TEXT wherever a job can, once and as a megabyte; what is in an attribute of XML cannot have control characters.
repeated() { awk "BEGIN { for (i = 0; i < $1; i++) printf \"%s\", ENVIRON[\"TEXT\"] }"; }
plain() { repeated "$1" | tr -d '\033\007'; }
attribute() { plain "$1" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/"/\&quot;/g'; }
cd /job/artifacts
printf '%s' "$TEXT" > "<b onclick=x>$(printf '\342\200\256').txt"
repeated 8000 > big.txt
{ printf '[x](javascript:alert(4)) ![x](https://evil.example/x.png) '; cat big.txt; } > summary.md
{
    printf '<testsuite name="%s"><testcase name="%s"><failure message="%s">' "$(attribute 1)" "$(attribute 9)" "$(attribute 900)"
    printf '<![CDATA['; plain 8000; printf ']]></failure></testcase></testsuite>'
} > junit.xml
printf '%s\033[2Jcleared\n' "$TEXT"
cat big.txt
exit 1
