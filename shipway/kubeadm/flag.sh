flag_in() { # NAME MANIFEST: what a static pod's manifest gives for a flag; nothing where it gives none
  sed -n "/^ *- *[\"']\{0,1\}--$1=/{s/^[^=]*=\([^\"' ]*\).*/\1/p;q}" "$2" 2>/dev/null
}
