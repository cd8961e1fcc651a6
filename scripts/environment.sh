# Chooses the ROS 2 and the virtual environment, and enters it. Sourced by the Makefile and by
# scripts/setup.sh; after `make setup` a person may say: source scripts/environment.sh
#
# Read:    ROS_DISTRO (jazzy, kilted), a sourced ROS installation (AMENT_PREFIX_PATH)
# Set:     LEWM_ROS    "wheels" (from PyPI) or "sourced"
#          LEWM_VENV   the virtual environment's folder
#          ROS_DISTRO, VIRTUAL_ENV, PATH, AMENT_PREFIX_PATH, LD_LIBRARY_PATH, PYTHONPATH, MUJOCO_GL

LEWM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Prints the entries of a path list ($1) that do not hold the file $2 and are not in /opt/ros.
lewm_without() {
  local entry result=
  local IFS=:
  for entry in $1; do
    if [ -n "$entry" ] && [ ! -e "$entry/$2" ] && [ "${entry#/opt/ros/}" = "$entry" ]; then
      result=${result:+$result:}$entry
    fi
  done
  printf '%s' "$result"
}

# Prints the distribution of the sourced ROS installation; nothing where there is none. A virtual
# environment with ROS wheels is none, also when it has been entered before.
lewm_sourced_distro() {
  local prefix
  local IFS=:
  for prefix in ${AMENT_PREFIX_PATH:-}; do
    if [ -e "$prefix/share/rclpy/package.xml" ] && [ ! -e "$prefix/pyvenv.cfg" ]; then
      case $prefix in
        /opt/ros/*) basename "$prefix" ;;
        *) printf '%s\n' "${ROS_DISTRO:-unknown}" ;;
      esac
      return
    fi
  done
}

lewm_select() {
  local sourced asked
  sourced=$(lewm_sourced_distro)
  asked=${ROS_DISTRO:-${sourced:-jazzy}}
  case $asked in
    foxy | galactic | humble | iron)
      if [ "$sourced" != "$asked" ]; then
        echo "ROS_DISTRO=$asked: lewm_ros needs jazzy or kilted" >&2
        return 1
      fi
      LEWM_NOTE="the sourced ROS 2 $asked is too old for lewm_ros and is left aside"
      asked=jazzy
      ;;
  esac
  LEWM_VENV=$LEWM_ROOT/.venv
  if [ "$asked" = "$sourced" ]; then
    LEWM_ROS=sourced
  elif [ -f "$LEWM_ROOT/scripts/ros-$asked.txt" ]; then
    LEWM_ROS=wheels
    if [ "$asked" != jazzy ]; then
      LEWM_VENV=$LEWM_ROOT/.venv-$asked
    fi
    # Another ROS on these paths would be mixed with the wheels, library by library.
    PYTHONPATH=$(lewm_without "${PYTHONPATH:-}" rclpy)
    LD_LIBRARY_PATH=$(lewm_without "${LD_LIBRARY_PATH:-}" librcl.so)
    CMAKE_PREFIX_PATH=$(lewm_without "${CMAKE_PREFIX_PATH:-}" share/ament_index)
    AMENT_PREFIX_PATH=
    # The wheels restart Python once with LD_LIBRARY_PATH set; this guard says "already done",
    # perhaps by the Python of another environment.
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
  else
    echo "ROS_DISTRO=$asked is neither sourced nor on PyPI: use jazzy or kilted" >&2
    return 1
  fi
  ROS_DISTRO=$asked
  export LEWM_ROS LEWM_VENV ROS_DISTRO
}

lewm_enter() {
  export VIRTUAL_ENV=$LEWM_VENV
  export PATH=$LEWM_VENV/bin:$PATH
  export AMENT_PREFIX_PATH=$LEWM_VENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}
  if [ "$LEWM_ROS" = sourced ]; then
    export LD_LIBRARY_PATH=$LEWM_VENV/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    # `ros2 launch` and `ros2 topic echo` run in the Python of the installation and need the
    # nodes, the interfaces and what they stand on.
    local folder
    for folder in "$LEWM_VENV"/lib/python3*/site-packages "$LEWM_ROOT"; do
      PYTHONPATH=$folder${PYTHONPATH:+:$PYTHONPATH}
    done
  fi
  local variable
  for variable in PYTHONPATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH; do
    # An empty entry would mean the working directory.
    if [ -z "${!variable:-}" ]; then unset "$variable"; else export "${variable?}"; fi
  done
  # Scenes render off screen, on a machine without a display too.
  export MUJOCO_GL=${MUJOCO_GL:-egl}
}

lewm_select && lewm_enter
