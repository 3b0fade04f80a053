"""What no file and no configuration of a stranger may name, since it could run programs or change files."""

_PROGRAMS = """
os posix nt subprocess _posixsubprocess pty popen2 commands shutil sys runpy importlib imp pkgutil ctypes _ctypes socket
_socket webbrowser antigravity code codeop pdb bdb pydoc pickle _pickle cPickle dill cloudpickle marshal multiprocessing
threading _thread asyncio signal
"""
PROGRAMS = frozenset(_PROGRAMS.split())
"""Modules that no data consist of."""

_CALLS = "exec eval execfile compile open file __import__ breakpoint input raw_input apply reload delattr setattr"
CALLS = frozenset(_CALLS.split())
"""Functions of `builtins` that no data consist of."""


def runs_programs(module: str, name: str) -> bool:
    """Whether `name` of `module` could run programs or change files if it were called."""
    root = module.split(".")[0]
    return root in PROGRAMS or (root in ("builtins", "__builtin__", "io", "_io") and name.split(".")[0] in CALLS)
