"""Run a command whose notebooks find their kernel warm: `python tools/warm_kernels.py COMMAND...`.

Before its first line a notebook pays for the imports of torch, Lightning and the rest, five to ten processor seconds on a slow
core, and the figures take some forty notebooks. Here one process imports the library once, and each kernel is a fork of it.
To Jupyter it is the kernel `python3`, put on its path for the time of the command; nothing is installed.
"""

import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from select import select

SOCKET = "LIFT_WARM_KERNELS"
INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as ipykernel sets it; matplotlib reads it on import


def pass_on(connection_file: str) -> None:
    """What Jupyter starts: asks for a kernel, hands it every signal, and ends with it, or when Jupyter is gone."""
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile() as reader:
        connection.connect(os.environ[SOCKET])
        request = {"connection_file": connection_file, "directory": os.getcwd(), "environment": dict(os.environ)}
        connection.sendall(json.dumps(request).encode() + b"\n")
        kernel = int(reader.readline())

        def hand_on(number: int, _: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(kernel, number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hand_on)
        while os.getppid() == parent and not select([connection], [], [], 1)[0]:
            pass


def import_everything() -> None:
    """Import the library, and with it all that its notebooks use, as a kernel would."""
    os.environ.update(INLINE)
    import_module("ipykernel.kernelapp")
    for module in pkgutil.walk_packages(import_module("lift").__path__, "lift."):
        import_module(module.name)


def become_kernel(connection: socket.socket) -> None:
    """Turn a fork into the kernel that was asked for; it ends when the one who asked is gone."""

    def end_with_caller() -> None:
        connection.recv(1)
        os._exit(1)

    request = json.loads(connection.makefile().readline())
    os.environ.clear()
    os.environ.update(INLINE | request["environment"])
    os.chdir(request["directory"])
    os.setsid()  # as Jupyter does with its own: Ctrl-C is for the one who asked, who hands it on
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=end_with_caller, daemon=True).start()
    argv = ["-f", request["connection_file"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    import_module("ipykernel.kernelapp").launch_new_instance(argv=argv)


def fork_kernel(listener: socket.socket) -> int | None:
    """The process of a new kernel, None where nobody asked for one in the last moment."""
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    with connection:
        if kernel := os.fork():
            return kernel
        listener.close()
        connection.settimeout(None)
        try:
            become_kernel(connection)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)  # what the parent would clean up is the parent's


def serve(command: list[str]) -> int:
    """Run the command, fork kernels for its notebooks, return its exit status."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        spec = Path(folder, "kernels", "python3")
        spec.mkdir(parents=True)
        argv = [sys.executable, str(Path(__file__).resolve()), "--pass-on", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3 (warm)", "language": "python"}))
        listener.bind(f"{folder}/socket")
        listener.listen()
        listener.settimeout(0.2)
        process = subprocess.Popen(command, env=os.environ | {SOCKET: f"{folder}/socket", "JUPYTER_PATH": folder})
        try:
            import_everything()  # meanwhile those who ask wait in the queue
            kernels = []
            while process.poll() is None:
                kernels = [kernel for kernel in kernels if os.waitpid(kernel, os.WNOHANG)[0] == 0]
                kernels += [kernel] if (kernel := fork_kernel(listener)) else []
        except BaseException:
            process.terminate()
            raise
        return process.returncode


def main() -> None:
    if sys.argv[1] == "--pass-on":
        pass_on(sys.argv[2])
    elif sys.platform == "linux":
        sys.exit(serve(sys.argv[1:]))
    else:  # elsewhere a fork of a process that has loaded such libraries may crash
        sys.exit(subprocess.run(sys.argv[1:]).returncode)


if __name__ == "__main__":
    main()
