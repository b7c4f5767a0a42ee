"""How a host's apt goes to an address, and what an address is on the host: words of bash for one script of many."""

from __future__ import annotations

ARCHITECTURE = "dpkg --print-architecture"
# A proxy for the one host stands before the common one, and DIRECT is none. `$u` is the address, $s and $h its scheme
# and host.
PROXY = r"""
  if [ -n "$(command -v apt-config)" ]; then
    one= all= plain=
    while IFS="=" read -r k v; do
      v=${v#"'"}; v=${v%"'"}
      case $k in one) one=$v;; all) all=$v;; plain) plain=$v;; esac
    done < <(apt-config shell one "Acquire::$s::Proxy::$h" all "Acquire::$s::Proxy" plain Acquire::http::Proxy)
    p=${one:-${all:-$plain}}
    [ -n "$p" ] || { p=$(/usr/lib/apt/apt-helper auto-detect-proxy "$u" 2>/dev/null); p=${p#*"proxy '"}; p=${p%%"'"*}; }
    [ "$p" != DIRECT ] || p=
  fi
  export http_proxy=$p https_proxy=$p"""
