#!/bin/sh
# The command `aos`: finds the installation that this file belongs to and starts its Python on aos.cli.main.
#
# -I: no PYTHON* variables, no user site, no current directory. -S: no site-packages start-up files; so the one
# directory that holds the package is found here, with nothing but shell builtins (a start costs 1 ms).
me=$0
case $me in */*) ;; *) me=$(command -v -- "$me") ;; esac
[ -h "$me" ] && me=$(readlink -f -- "$me")
bin=${me%/*}
prefix=$bin/..

for site in "$prefix"/lib/python3*/site-packages "$prefix"/lib64/python3*/site-packages \
    "$prefix"/lib/python3*/dist-packages; do
    if [ -f "$site/aos/cli/main.py" ]; then
        found=$site
    else # an editable installation: a .pth file names the source directory
        for pth in "$site"/*openos_aos*.pth; do
            [ -f "$pth" ] || continue
            read -r found <"$pth" || :
            break
        done
    fi
    if [ -n "${found-}" ]; then
        python=${site%/*}
        python=${python##*/}
        break
    fi
done
if [ -z "${found-}" ]; then
    echo "aos: the installation beside $me has no aos package" >&2
    echo "hint: install openos-aos again (uv sync, or pip install openos-aos)" >&2
    exit 1
fi

interpreter=$bin/$python
if [ ! -x "$interpreter" ] && ! interpreter=$(command -v "$python"); then
    echo "aos: $python, which aos was installed for, is gone" >&2
    echo "hint: install $python, or aos again with the Python that is there" >&2
    exit 1
fi
exec "$interpreter" -IS -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from aos.cli.main import entry
entry()' "$found" "$@"
