"""Child processes that end with this one, whatever ends it."""

from collections.abc import Sequence

# The shell becomes the program, so that the child's pid is the program's; what it leaves behind waits for this
# process to end (end of file on the pipe) and then kills the program. Unlike PR_SET_PDEATHSIG this does not depend
# on which thread started the child (asyncio.to_thread), and it works on every Unix.
_SCRIPT = 'exec 3<&0; { read -r _ <&3 || kill -9 $$; } & exec "$@" </dev/null 3<&-'


def tied(command: Sequence[str]) -> list[str]:
    """The command to give to Popen, with `stdin=subprocess.PIPE, bufsize=0`; the pipe must stay open."""
    return ["/bin/sh", "-c", _SCRIPT, "sh", *command]
