"""Other people's servers for scripts/measure_dataplane.py: TLS on both sides, one thread, and nothing that a run does not need.

nginx and haproxy ask for a client certificate and take callers without one, as nodes do, and show one to the provider. They
pass every call on over connections that they keep. Nothing is logged.
"""

import os
import shutil
import subprocess

from nodes import Trouble, free_ports, wait_for

PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "nats-server": "nats-server"}

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  upstream provider {{ server {provider}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen {address} ssl http2;
    http2_max_concurrent_streams 1024;
    ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_client_certificate {ca}; ssl_verify_client optional;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      grpc_pass grpcs://provider;
      grpc_ssl_verify on; grpc_ssl_trusted_certificate {ca}; grpc_ssl_name localhost; grpc_ssl_server_name on;
      grpc_ssl_certificate {admin_cert}; grpc_ssl_certificate_key {admin_key};
      grpc_ssl_protocols TLSv1.2 TLSv1.3;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8192
  tune.h2.max-concurrent-streams 1024
  ssl-server-verify required
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend calls
  bind {address} ssl crt {both} ca-file {ca} verify optional alpn h2,http/1.1 ssl-min-ver TLSv1.2
  default_backend provider
backend provider
  server provider {provider} ssl verify required ca-file {ca} crt {admin_both} sni str(localhost) verifyhost localhost alpn h2 max-reuse -1 pool-max-conn 512
"""

NATS = """
listen: "{address}"
tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ca}" }}
"""


def find(name):
    """Where the program is, or a word that it is missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        print(f"{name} is not installed: left out (Debian: apt-get install --no-install-recommends {PACKAGES[name]})")
    return path


def version(path, flag):
    """What a program calls itself, on one line."""
    done = subprocess.run([path, flag], capture_output=True, text=True, timeout=10)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else os.path.basename(path)


def start(cluster, provider, cores):
    """Starts those that are there: name → (address, process), and name → version."""
    starts = {"nginx": (NGINX, nginx), "haproxy": (HAPROXY, haproxy), "nats-server": (NATS, nats)}
    systems, versions = {}, {}
    for program, (template, command) in starts.items():
        path = find(program)
        if path is None:
            continue
        name = program.removesuffix("-server")
        versions[name] = version(path, "-v")
        address = f"127.0.0.1:{free_ports(1)[0]}"
        config = os.path.join(cluster.directory, f"{name}.conf")
        with open(config, "w") as file:
            file.write(template.format(**places(cluster, provider, address)))
        process = cluster.run(name, command(path, config), cores)
        wait_for(lambda: process.alive() and listens(address), f"{name} listens")
        systems[name] = (address, process)
    return systems, versions


def places(cluster, provider, address):
    return {
        "directory": cluster.directory,
        "provider": provider,
        "address": address,
        "ca": cluster.certificate("ca"),
        "cert": cluster.certificate("bare"),
        "key": cluster.key("bare"),
        "both": both(cluster, "bare"),
        "admin_cert": cluster.certificate("admin"),
        "admin_key": cluster.key("admin"),
        "admin_both": both(cluster, "admin"),
    }


def both(cluster, name):
    """Certificate and key in one file, as haproxy wants them."""
    path = os.path.join(cluster.directory, f"{name}_both.pem")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        for part in (cluster.certificate(name), cluster.key(name)):
            with open(part) as file:
                out.write(file.read())
    return path


def listens(address):
    """Whether a socket of this machine listens there (proc(5): local address, state 0A)."""
    host, port = address.split(":")
    local = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{int(port):04X}"
    with open("/proc/net/tcp") as sockets:
        return any(line.split()[1] == local and line.split()[3] == "0A" for line in list(sockets)[1:])


def nginx(path, config):
    return [path, "-c", config]


def haproxy(path, config):
    checked = subprocess.run([path, "-c", "-f", config], capture_output=True, text=True, timeout=10)
    if checked.returncode != 0:
        raise Trouble(f"haproxy does not take its configuration: {checked.stderr.strip()}")
    return [path, "-db", "-f", config]


def nats(path, config):
    return ["env", "GOMAXPROCS=1", path, "-c", config]
