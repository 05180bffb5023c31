# The blocks of a Markdown page in one language: awk -v lang=c -f blocks.awk PAGE
$0 == "```" lang { on = 1; next }
/^```/ { on = 0 }
on { print }
