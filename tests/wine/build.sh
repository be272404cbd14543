#!/usr/bin/env bash
# build.sh TARGET: a CPython 3.11 for Windows that runs under Wine, with what the tests need.
#
# The interpreter is python.org's own: panda3d, a game engine, brings its DLLs along in the wheel for Windows, to
# freeze programs with. The standard library in Python comes from a Python 3.11 of this system, and python.exe, which
# does nothing but call the DLL, is compiled here. None of it is part of pyipc or distributed with it.
#
# PYTHON names one with pip, PYTHON311 a Python 3.11, UV the uv that installs packages for another system (pip would read their conditions
# as if for this one).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${1:?where to}"
target=$(cd "$1" && pwd)
: "${PYTHON:?which Python has pip}" "${PYTHON311:?which Python 3.11}" "${UV:?which uv}"

wheel=panda3d-1.10.16-cp311-cp311-win_amd64.whl
checksum=37acfb92655c4226879f95c988e2ef1449a53c54486d6c1ebc00e2772429af82
prefix=x86_64-w64-mingw32

say() { printf 'wine: %s\n' "$*" >&2; }

# up_to_date NAME FILES...: whether a step was done with these files as they are; else `done_with` notes it afterwards.
stamp() { cat "${@}" | cksum; }
up_to_date() { [ "$(cat "$target/stamp-$1" 2>/dev/null)" = "$root $(stamp "${@:2}")" ]; }
done_with() { printf '%s\n' "$root $(stamp "${@:2}")" >"$target/stamp-$1"; }

interpreter() {
    local python=$target/python work=$target/work stdlib
    rm -rf "$python" "$work" "$target"/stamp-*
    mkdir -p "$python/DLLs" "$python/Lib/site-packages" "$work"

    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform win_amd64 \
        --python-version 3.11 --dest "$work" "panda3d==1.10.16"
    (cd "$work" && printf '%s  %s\n' "$checksum" "$wheel" | sha256sum --check --quiet -)
    unzip -qoj "$work/$wheel" 'deploy_libs/*' -d "$work/libraries"
    (
        cd "$work/libraries"
        cp python311.dll "$python"
        cp VCRUNTIME140.dll "$python/vcruntime140.dll"
        cp _*.pyd select.pyd pyexpat.pyd unicodedata.pyd libffi-8.dll libcrypto-3.dll libssl-3.dll sqlite3.dll "$python/DLLs"
    )

    stdlib=$("$PYTHON311" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    tar -C "$stdlib" -cf - --exclude=__pycache__ --exclude='./*-packages' --exclude='./config-*' --exclude=./lib-dynload \
        --exclude=./test --exclude=./idlelib --exclude=./tkinter . | tar -C "$python/Lib" -xf -

    # The DLL is a 3.11.9, and calls this as a method of the class, which it became in 3.11.8.
    sed -i '/@classmethod/{n;b};s/^    def invalidate_caches(cls):$/    @classmethod\n&/' "$python/Lib/importlib/metadata/__init__.py"

    cp "$here/python.manifest" "$work"
    echo '1 24 "python.manifest"' >"$work/manifest.rc"
    # The stable ABI's DLL is nothing but the names of the other one.
    {
        printf 'LIBRARY python3.dll\nEXPORTS\n'
        "$prefix-objdump" -p "$python/python311.dll" |
            sed -n '/^\[Ordinal\/Name Pointer\] Table/,/^$/s/^.*\] *\([A-Za-z_][A-Za-z0-9_]*\)$/\1=python311.\1/p'
    } >"$work/python3.def"
    (
        cd "$work"
        "$prefix-windres" manifest.rc manifest.o
        "$prefix-gcc" -O2 -s -municode -static "$here/python.c" manifest.o -o "$python/python.exe"
        "$prefix-gcc" -shared -nostdlib -Wl,-e,0 python3.def -o "$python/python3.dll"
        "$prefix-gcc" -O2 -s -shared "$here/bcryptprimitives.c" -ladvapi32 -o "$python/bcryptprimitives.dll"
    )
    rm -rf "$work"
}

packages() {
    local site=$target/python/Lib/site-packages
    rm -rf "$site"
    (cd "$root" && "$UV" pip install --quiet --python-platform x86_64-pc-windows-msvc --python-version 3.11 \
        --only-binary :all: --target "$site" -r pyproject.toml --extra cli --group test)
    cp "$here/sitecustomize.py" "$site"
    printf 'Z:%s\n' "${root//\//\\}" >"$site/pyipc.pth"
}

windows() {
    # Wine 8 says that it is Windows 7, for which this Python was not made.
    rm -rf "$target/prefix"
    "$PYTHON" "$here/start.py" "$target" --windows-10
}

if ! up_to_date interpreter "$here/build.sh" "$here"/*.c "$here/python.manifest"; then
    say "putting together a Python for Windows (once)"
    interpreter
    done_with interpreter "$here/build.sh" "$here"/*.c "$here/python.manifest"
fi
if ! up_to_date packages "$root/pyproject.toml" "$here/sitecustomize.py"; then
    say "installing what the tests need for Windows (once)"
    packages
    done_with packages "$root/pyproject.toml" "$here/sitecustomize.py"
fi
if ! up_to_date windows "$here/build.sh"; then
    say "making a Wine prefix (once)"
    windows
    done_with windows "$here/build.sh"
fi
