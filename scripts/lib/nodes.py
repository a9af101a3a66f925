"""Real nodes on loopback, for the scripts beside this folder: certificates, processes, HTTPS. Standard library only.

A `Cluster` is a temporary directory with certificates, and the node processes started from it. It ends all of them and
removes the directory when its `with` block is left, however it is left.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Seconds that a start, or a wait for a state, may take before the script gives up.
PATIENCE = 30
# Clock ticks a second in /proc.
TICKS = os.sysconf("SC_CLK_TCK")


class Trouble(Exception):
    """Something that stops the script, in words for its user."""


def binaries(build, *cargo_arguments):
    """The folder of the release binaries, built first if `build`."""
    if build:
        command = ["cargo", "build", "--release", "--locked", "-p", "p2p-node", "-p", "p2pctl", *cargo_arguments]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise Trouble("the build failed")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(os.path.abspath(target), "release")


def program(folder, *names):
    path = os.path.join(folder, *names)
    if not os.access(path, os.X_OK):
        raise Trouble(f"{path} is missing; run without --no-build")
    return path


def free_ports(count):
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition, what, patience=PATIENCE, pause=0.02):
    """Asks `condition` until it gives something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Trouble(f"not within {patience} s: {what}")
        time.sleep(pause)


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, name, command, log, cores=None):
        if cores is not None:
            command = ["taskset", "-c", cores, *command]
        self.name, self.log = name, log
        with open(log, "ab") as output:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.pid = self.child.pid

    def alive(self):
        """True, or the end of the log as the reason why not."""
        if self.child.poll() is not None:
            with open(self.log, errors="replace") as log:
                raise Trouble(f"{self.name} has ended ({self.child.returncode}):\n{log.read()[-2000:]}")
        return True

    def stop(self, how=signal.SIGTERM, patience=15):
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def cpu_seconds(self):
        """User and system time so far (proc(5): fields 14 and 15)."""
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


class Node(Process):
    """A running node."""

    def __init__(self, cluster, name, command, port, cores):
        self.cluster, self.port, self.address = cluster, port, f"127.0.0.1:{port}"
        self.connection = None
        super().__init__(name, command, os.path.join(cluster.directory, f"{name}.log"), cores)

    def get(self, path, token=None):
        """Status and body, over one kept connection with the admin's certificate; as the bearer of `token` if given."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(
                    "127.0.0.1", self.port, timeout=5, context=self.cluster.tls
                )
            try:
                self.connection.request("GET", path, headers=headers)
                answer = self.connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                self.forget_connection()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def forget_connection(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def ready(self):
        self.alive()
        try:
            return self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def states(self):
        """State of every member that this node knows, by node id."""
        status, body = self.get("/cluster/nodes")
        if status != 200:
            raise Trouble(f"{self.name}: /cluster/nodes answered {status}: {body}")
        return {item["node_id"]: item["state"] for item in json.loads(body)["items"]}

    def metrics(self):
        """All samples of /metrics, by name and labels as they stand there."""
        status, body = self.get("/metrics")
        if status != 200:
            raise Trouble(f"{self.name}: /metrics answered {status}")
        samples = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
        return {sample: float(value) for sample, _, value in samples}

    def metric(self, name, labels=""):
        """The value of one sample of /metrics; 0 if it is not there yet."""
        return self.metrics().get(name + labels, 0.0)


class Cluster:
    """Certificates of a cluster and the nodes started with them."""

    def __init__(self, folder, names, settings=None):
        """`names`: all nodes that will ever run; the first, and each `NAME:coordinator`, is a coordinator. `settings`: for
        every node."""
        self.folder, self.settings = folder, settings or {}
        roles = [name.partition(":") for name in names]
        self.coordinators = {name for at, (name, _, role) in enumerate(roles) if at == 0 or role == "coordinator"}
        self.seed = None
        self.directory = tempfile.mkdtemp(prefix="p2p-")
        self.processes = []
        self.certificates = os.path.join(self.directory, "certs")
        command = [program(folder, "p2pctl"), "certs", "generate", "--out", self.certificates, "--cluster-id", "bench"]
        for name, _, _ in roles:
            command += ["--node", f"{name}:coordinator" if name in self.coordinators else name]
        # The context that it writes is nobody's.
        environment = {**os.environ, "XDG_CONFIG_HOME": self.directory}
        made = subprocess.run(command, capture_output=True, text=True, env=environment)
        if made.returncode != 0:
            raise Trouble(f"no certificates: {made.stderr}")
        self.tls = ssl.create_default_context(cafile=self.certificate("ca"))
        self.tls.load_cert_chain(self.certificate("admin"), self.key("admin"))

    def p2pctl(self, *arguments, at=None):
        """What p2pctl prints, asked by the admin of the node at `at`, else of the first coordinator."""
        who = ["--endpoint", at or self.seed, *self.tls_arguments("admin")]
        done = subprocess.run([program(self.folder, "p2pctl"), *who, *arguments], capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise Trouble(f"p2pctl {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def certificate(self, name):
        return os.path.join(self.certificates, f"{name}_cert.pem")

    def key(self, name):
        return os.path.join(self.certificates, f"{name}_key.pem")

    def tls_arguments(self, name):
        return ["--ca", self.certificate("ca"), "--cert", self.certificate(name), "--key", self.key(name)]

    def start(self, name, binary=None, cores=None, port=None, joins=True, before=()):
        """Starts a node. The first one that joins is the seed of the others; one that does not stays alone. `before`: words
        that go before its command, as of env(1)."""
        port = port or free_ports(1)[0]
        config = {
            "node_id": name,
            "coordinator_mode": name in self.coordinators,
            "bind_address": "127.0.0.1",
            "port": port,
            "advertise_addresses": [f"127.0.0.1:{port}"],
            "coordinator_addresses": [self.seed] if self.seed and joins else [],
            "ssl_cert_file": self.certificate(name),
            "ssl_key_file": self.key(name),
            "ssl_ca_cert_file": self.certificate("ca"),
            "state_directory": os.path.join(self.directory, name),
            **self.settings,
        }
        path = os.path.join(self.directory, f"{name}.yaml")
        with open(path, "w") as file:
            json.dump(config, file)  # JSON is YAML.
        command = [*before, binary or program(self.folder, "p2p-node"), "--config", path]
        node = Node(self, name, command, port, cores)
        self.processes.append(node)
        if joins:
            self.seed = self.seed or node.address
        return node

    def run(self, name, command, cores=None):
        """Starts another process that ends with the cluster."""
        process = Process(name, command, os.path.join(self.directory, f"{name}.log"), cores)
        self.processes.append(process)
        return process

    def __enter__(self):
        # A script that is told to stop leaves by the same door.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.child.poll() is None:
                process.child.kill()
        for process in self.processes:
            process.child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def main_with(run):
    """Runs a script; trouble and Ctrl-C end it with a line, not a traceback."""
    try:
        sys.exit(run())
    except Trouble as trouble:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {trouble}")
    except KeyboardInterrupt:
        sys.exit(130)
