# SPDX-License-Identifier: Apache-2.0
# Completion of stratactl for bash.

_stratactl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local verbs="cleanup counters df drain du fsck health layers ls probe tree"
  local word verb="" options="--socket --root --json --help"
  COMPREPLY=()
  case $previous in
    --socket)
      compopt -o filenames 2> /dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "${current:-/run/strata/}")
      return
      ;;
    --root)
      compopt -o filenames 2> /dev/null
      mapfile -t COMPREPLY < <(compgen -d -- "${current:-/var/lib/strata/}")
      return
      ;;
    --timeout)
      return
      ;;
  esac
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ " $verbs " == *" $word "* ]] && verb=$word
  done
  case $verb in
    ls) options+=" --labels" ;;
    fsck) options+=" --repair" ;;
    drain) options+=" --timeout" ;;
  esac
  [[ -z $verb ]] && options+=" $verbs"
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}

complete -F _stratactl stratactl
