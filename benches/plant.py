"""The programs that a bench measures: started on loopback, watched through /proc, ended again."""

import contextlib
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
STARTED = os.getloadavg()
TICKS = os.sysconf("SC_CLK_TCK")

# Debian keeps some programs where only root looks.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"


class Server:
    """A running program with the port that it listens on."""

    def __init__(self, name, command, port, log):
        self.name, self.port = name, port
        self.command, self.log = command, log
        # The admin port of a node.
        self.admin = None
        self.start()

    def start(self):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._wait_until_it_listens()

    def _wait_until_it_listens(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.stop()
        tail = pathlib.Path(self.log).read_text(errors="replace")[-2000:]
        sys.exit(f"{self.name} does not listen on port {self.port}:\n{tail}")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def pids(self):
        """The process and all that descend from it."""
        tree = [self.process.pid]
        for pid in tree:
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    tree += [int(child) for child in children.read_text().split()]
        return tree

    def cpu_seconds(self):
        """User and system time of the whole tree, ended children included."""
        ticks = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
        return ticks / TICKS

    def forget_peak(self):
        for pid in self.pids():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self):
        """Peak resident memory since `forget_peak`, summed over the tree."""
        kib = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    kib += int(line.split()[1])
        return kib / 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Admin:
    """The admin port of a node."""

    def __init__(self, name, port):
        self.name, self.port = f"{name}, its admin port", port


class Plant:
    """A folder with servers in it; leaving it ends them and removes the folder."""

    def __enter__(self):
        # Ended from outside, it still ends what it started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="wharf-bench-"))
        self.servers = []
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, name):
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _start(self, name, command, port):
        server = Server(name, [str(word) for word in command], port, self.folder / f"{name}.log")
        self.servers.append(server)
        return server

    def docker_registry(self, name="docker-registry", program="docker-registry", parent=None):
        """Debian's package (or another `program` of distribution) with the settings that it comes with, but for port,
        folder and, where it is a cache, its parent."""
        place, port = self.place(name), free_port()
        settings = {
            "version": 0.1,
            "log": {"fields": {"service": "registry"}},
            "storage": {"cache": {"blobdescriptor": "inmemory"}, "filesystem": {"rootdirectory": str(place)}},
            "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
            "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        }
        if parent:
            settings["proxy"] = {"remoteurl": f"http://{parent.address}"}
        # JSON is YAML.
        (place / "config.yml").write_text(json.dumps(settings))
        return self._start(name, [program, "serve", place / "config.yml"], port)

    def nginx(self, root, name="nginx"):
        """A static file server."""
        return self._nginx(name, "nginx.conf.in", ROOT=root)

    def nginx_cache(self, parent, name="nginx"):
        """A cache of another server."""
        return self._nginx(name, "nginx_cache.conf.in", PARENT=parent.address)

    def _nginx(self, name, template, **more):
        place, port = self.place(name), free_port()
        config = (HERE / template).read_text()
        for key, value in {
            "USER": pwd.getpwuid(os.getuid()).pw_name,
            "CORES": os.cpu_count(),
            "RUN": place,
            "PORT": port,
            **more,
        }.items():
            config = config.replace(f"@{key}@", str(value))
        (place / "nginx.conf").write_text(config)
        return self._start(name, ["nginx", "-p", place, "-c", place / "nginx.conf"], port)

    def wharf(self, binary, parent, name="wharf"):
        """A mirror of `parent` with the defaults, its request log in a file."""
        return self._wharf(binary, name, "mirror", f'[parent]\nurl = "http://{parent.address}"')

    def wharf_registry(self, binary, name="wharf"):
        """A registry of its own, likewise."""
        return self._wharf(binary, name, "registry")

    def wharf_below(self, binary, port, name="wharf"):
        """A registry below the one on a port, likewise."""
        return self._wharf(binary, name, "registry", f'[parent]\nurl = "http://127.0.0.1:{port}"')

    def wharf_asking(self, binary, name, settings, under=()):
        """A registry of its own with these settings more, run `under` another program."""
        return self._wharf(binary, name, "registry", settings, under)

    def _wharf(self, binary, name, mode, more="", under=()):
        place, port, admin = self.place(name), free_port(), free_port()
        (place / "wharf.toml").write_text(
            f"""
            mode = "{mode}"
            [node]
            name = "{name}"
            [listen]
            address = "127.0.0.1:{port}"
            [admin]
            address = "127.0.0.1:{admin}"
            [storage]
            path = "{place / 'data'}"
            {more}
            [log]
            requests = "{place / 'requests.log'}"
            """
        )
        server = self._start(name, [*under, binary, "serve", "--config", place / "wharf.toml"], port)
        server.admin = Admin(name, admin)
        return server


class Image:
    """One layer of seeded noise under a manifest of exactly `manifest_size` bytes."""

    def __init__(self, seed, layer_size, manifest_size=2048):
        self.layer = noise(seed, layer_size)
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
        self.repository, self.tag = "bench/image", f"tag-{seed}"
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, self.config),
            "layers": [descriptor(LAYER, self.layer)],
            "annotations": {"padding": ""},
        }
        document["annotations"]["padding"] = "x" * (manifest_size - len(json.dumps(document)))
        self.manifest = json.dumps(document).encode()
        self.manifest_path = f"/v2/{self.repository}/manifests/{self.tag}"
        self.blob_path = f"/v2/{self.repository}/blobs/{digest(self.layer)}"

    def push(self, server):
        for blob in (self.config, self.layer):
            answer = request(server, "POST", f"/v2/{self.repository}/blobs/uploads/", want=202)
            place = answer.headers["Location"].split(server.address, 1)[-1]
            place += ("&" if "?" in place else "?") + "digest=" + digest(blob)
            request(server, "PUT", place, body=blob, want=201)
        request(server, "PUT", self.manifest_path, body=self.manifest, headers={"Content-Type": MANIFEST}, want=201)

    def write_under(self, root):
        for path, content in ((self.blob_path, self.layer), (self.manifest_path, self.manifest)):
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def check(self, server):
        """Pulls both, so that they are warm from here on, and compares every byte."""
        if request(server, "GET", self.manifest_path, want=200).content != self.manifest:
            sys.exit(f"{server.name} gave other bytes than were pushed: {self.manifest_path}")
        self.check_blob(server)

    def check_blob(self, server):
        if request(server, "GET", self.blob_path, want=200).content != self.layer:
            sys.exit(f"{server.name} gave other bytes than were pushed: {self.blob_path}")


def built(folder, *programs):
    """The paths of programs that `make build` has put under `folder`."""
    paths = [(folder / program).resolve() for program in programs]
    for path in paths:
        if not path.exists():
            sys.exit(f"{path} does not exist: make build")
    return paths


def request(server, method, path, body=None, headers=None, want=200):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, path, body=body, headers={"Accept": f"{MANIFEST}, */*", **(headers or {})})
        answer = connection.getresponse()
        answer.content = answer.read()
    finally:
        connection.close()
    if answer.status != want:
        sys.exit(f"{server.name}: {method} {path} answered {answer.status}, not {want}: {answer.content[:500]}")
    return answer


def fill_memory(plant):
    """Fills what is free with the page cache of a file of nothing but holes."""
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemFree")) * 1024
    holes = plant.folder / "holes"
    with open(holes, "wb") as file:
        file.truncate(max(free - 2**30, 0))
    with open(holes, "rb", buffering=0) as file:
        piece = bytearray(2**20)
        while file.readinto(piece):
            pass


def noise(seed, size):
    return hashlib.shake_128(str(seed).encode()).digest(size)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(media_type, content):
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def machine():
    """What the figures depend on, without the machine's name."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    size = f"{os.cpu_count()} x {model}, {memory / 2**20:.0f} GiB, Linux {platform.release().split('-')[0]}"
    # Of the five minutes before: what else ran, when it was begun.
    return f"{when}; {size}; load average {STARTED[1]:.1f} at the start"


def keep(question, report):
    """Keeps a report beside the bench: one file per question and day."""
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    file = HERE / "results" / f"{day}-{question}.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(report + "\n")
    print(f"\nkept in {file.relative_to(HERE.parent)}")
