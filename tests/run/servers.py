#!/usr/bin/env python3
"""Real servers, as they are and behind ringmaster-run.

    servers.py BUILD [--servers NAME,...] [--modes MODE,...] [--loads LOAD,...] [--seconds S]
               [--repetitions N] [--hogs N] [--check]

Starts each server with four workers in a folder of its own, once for each mode:

    alone         as it is
    none          ringmaster-run --policy none: counts, and changes nothing
    POLICY        ringmaster-run --policy POLICY

`stay`: 64 clients open a connection each, 3 ms apart, and ask again and again. Who has them is read
from /proc, where that tells; of threads of one process only ringmaster-run can tell. `churn`: 64
clients ask once for each connection. Modes are interleaved; figures are medians, and `x first` says
the median of how a mode compares with the first one of the same repetition. `cpu` is what the
server's processes have used for a request of `churn`, in microseconds, and `switches` how often one
of them has gone to sleep for it: these say more than time does where the machine is busy. --check
fails where what is promised does not hold. A server that is not installed is skipped (exit status
77 if all are).
"""

import argparse
import getpass
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WORKERS = 4
CLIENTS = 64

APP_ASGI = """
import time
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    time.sleep(0.0005)
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"3"), (b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok\\n"})
"""

APP_WSGI = """
import time
def app(environ, start_response):
    time.sleep(0.0005)
    start_response("200 OK", [("Content-Length", "3"), ("Content-Type", "text/plain")])
    return [b"ok\\n"]
"""

APP_ASYNCIO = """
import asyncio, os, signal, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(1024)
listener.setblocking(False)
async def serve(reader, writer):
    try:
        while True:
            request = await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nok\\n")
            await writer.drain()
            if b"Connection: close" in request:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
async def main():
    await (await asyncio.start_server(serve, sock=listener)).serve_forever()
workers = []
for _ in range(%d):
    pid = os.fork()
    if pid == 0:
        asyncio.run(main())
    workers.append(pid)
def end(*_):
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    signal.pause()
""" % WORKERS

APP_NODE = """
const cluster = require('cluster'), http = require('http');
cluster.schedulingPolicy = process.env.SCHED === 'rr' ? cluster.SCHED_RR : cluster.SCHED_NONE;
if (cluster.isPrimary) {
  for (let i = 0; i < %d; ++i) cluster.fork();
  process.on('SIGTERM', () => { for (const id in cluster.workers) cluster.workers[id].kill(); process.exit(0); });
} else {
  http.createServer((request, response) => {
    const until = process.hrtime.bigint() + 200000n;
    while (process.hrtime.bigint() < until);
    response.writeHead(200, {'Content-Length': 3});
    response.end('ok\\n');
  }).listen(+process.env.PORT, '127.0.0.1');
}
""" % WORKERS


def nginx(extra_events="", extra_listen=""):
    def make(folder, port):
        os.makedirs(f"{folder}/html", exist_ok=True)
        write(f"{folder}/html/index.html", "ok\n")
        write(f"{folder}/nginx.conf", f"""
daemon off; worker_processes {WORKERS}; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; {extra_events} }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 10000000;
  server {{ listen 127.0.0.1:{port} {extra_listen}; root {folder}/html; }} }}
""")
        return ["nginx", "-c", f"{folder}/nginx.conf", "-p", folder], {}
    return make


def apache(mpm):
    def make(folder, port):
        modules = "/usr/lib/apache2/modules"
        os.makedirs(f"{folder}/html", exist_ok=True)
        write(f"{folder}/html/index.html", "ok\n")
        threads = (f"StartServers {WORKERS}\nServerLimit {WORKERS}\nThreadsPerChild 32\nThreadLimit 32\n"
                   f"MaxRequestWorkers {32 * WORKERS}\nMinSpareThreads 1\nMaxSpareThreads {32 * WORKERS}\n")
        prefork = (f"StartServers {WORKERS}\nServerLimit {WORKERS}\nMaxRequestWorkers {WORKERS}\n"
                   f"MinSpareServers {WORKERS}\nMaxSpareServers {WORKERS}\n")
        write(f"{folder}/apache.conf", f"""
ServerRoot {folder}
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule dir_module {modules}/mod_dir.so
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
ServerName localhost
Listen 127.0.0.1:{port}
DocumentRoot {folder}/html
DirectoryIndex index.html
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout {60 if mpm == "event" else 1}
{threads if mpm == "event" else prefork}
<Directory />
Require all granted
</Directory>
""")
        return ["apache2", "-f", f"{folder}/apache.conf", "-D", "FOREGROUND"], {}
    return make


def haproxy(folder, port):
    write(f"{folder}/haproxy.cfg", f"""
global
  nbthread {WORKERS}
  maxconn 1000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend f
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain string "ok"
""")
    return ["haproxy", "-db", "-f", f"{folder}/haproxy.cfg"], {}


def gunicorn(*arguments, app=APP_WSGI):
    def make(folder, port):
        write(f"{folder}/app.py", app)
        return ["gunicorn", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}", "--chdir", folder,
                "--log-level", "error", "--keep-alive", "60", *arguments, "app:app"], {}
    return make


def asyncio_forked(folder, port):
    write(f"{folder}/server.py", APP_ASYNCIO)
    return [sys.executable, f"{folder}/server.py", str(port)], {}


def uvicorn(folder, port):
    write(f"{folder}/app.py", APP_ASGI)
    return ["uvicorn", "--workers", str(WORKERS), "--port", str(port), "--app-dir", folder,
            "--log-level", "error", "--timeout-keep-alive", "60", "app:app"], {}


def node(scheduling):
    def make(folder, port):
        write(f"{folder}/app.js", APP_NODE)
        return ["node", f"{folder}/app.js"], {"PORT": str(port), "SCHED": scheduling}
    return make


def unicorn(folder, port):
    write(f"{folder}/config.ru",
          "run lambda { |env| [200, {'Content-Length' => '3'}, [\"ok\\n\"]] }\n")
    write(f"{folder}/unicorn.rb", f"worker_processes {WORKERS}\nlisten '127.0.0.1:{port}'\n"
          f"logger Logger.new('{folder}/log')\n")
    return ["unicorn", "-c", f"{folder}/unicorn.rb", f"{folder}/config.ru"], {}


def puma(folder, port):
    write(f"{folder}/config.ru",
          "run lambda { |env| [200, {'Content-Length' => '3'}, [\"ok\\n\"]] }\n")
    return ["puma", "-q", "-w", str(WORKERS), "-t", "16:16", "-b", f"tcp://127.0.0.1:{port}",
            f"{folder}/config.ru"], {}


def php_fpm(folder, port):
    """It speaks FastCGI, so nginx stands in front, which is started apart (see Server)."""
    fpm = free_port()
    write(f"{folder}/index.php", "<?php echo \"ok\\n\";\n")
    write(f"{folder}/fpm.conf", f"""
[global]
daemonize = no
error_log = {folder}/error.log
[www]
user = {getpass.getuser()}
listen = 127.0.0.1:{fpm}
pm = static
pm.max_children = {WORKERS}
""")
    write(f"{folder}/front.conf", f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/front.log;
events {{ worker_connections 512; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 10000000;
  server {{ listen 127.0.0.1:{port}; location / {{
    fastcgi_pass 127.0.0.1:{fpm}; fastcgi_param SCRIPT_FILENAME {folder}/index.php;
    fastcgi_param REQUEST_METHOD $request_method; }} }} }}
""")
    return ["php-fpm8.2", "-F", "-n", "-R", "-y", f"{folder}/fpm.conf"], {}


# How each starts, and whether a policy helps it: then connections that stay are even.
SERVERS = {
    "asyncio": (asyncio_forked, True),
    "gunicorn-uvicorn": (gunicorn("-k", "uvicorn.workers.UvicornWorker", app=APP_ASGI), True),
    "gunicorn-gthread": (gunicorn("-k", "gthread", "--threads", "32"), True),
    "uvicorn": (uvicorn, True),
    "node-none": (node("none"), True),
    "nginx": (nginx(), True),
    "nginx-multi": (nginx("multi_accept on;"), True),
    "apache-event": (apache("event"), True),
    "haproxy": (haproxy, True),
    "gunicorn-sync": (gunicorn("-k", "sync"), False),
    "unicorn": (unicorn, False),
    "puma": (puma, False),
    "php-fpm": (php_fpm, False),
    "apache-prefork": (apache("prefork"), False),
    "node-rr": (node("rr"), False),
    "nginx-mutex": (nginx("accept_mutex on;"), False),
    "nginx-reuseport": (nginx("", "reuseport"), False),
}
# They serve one connection at a time, so 64 that stay would wait for each other.
ONE_EACH = ("gunicorn-sync", "unicorn", "apache-prefork")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descendants(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    found.append(int(child))
                    found += descendants(int(child))
    except OSError:
        pass
    return found


def established(port):
    """Inodes of the server's ends of connections."""
    inodes = set()
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if fields[3] == "01" and int(fields[1].split(":")[1], 16) == port:
                inodes.add(fields[9])
    return inodes


def by_process(pid, port):
    """How many connections each process has that has any."""
    inodes = established(port)
    counts = []
    for process in descendants(pid):
        count = 0
        try:
            for fd in os.listdir(f"/proc/{process}/fd"):
                try:
                    link = os.readlink(f"/proc/{process}/fd/{fd}")
                except OSError:
                    continue
                if link.startswith("socket:[") and link[8:-1] in inodes:
                    count += 1
        except OSError:
            continue
        if count:
            counts.append(count)
    return sorted(counts, reverse=True)


def used(pid):
    """CPU time in seconds and voluntary switches of a process and all that it has started."""
    seconds, switches = 0.0, 0
    for process in [pid] + descendants(pid):
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{task}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                with open(f"/proc/{process}/task/{task}/status") as file:
                    switches += int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", file.read())[1])
        except (OSError, TypeError):
            continue
    return seconds, switches


class Server:
    def __init__(self, build, name, mode):
        self.folder = tempfile.mkdtemp(prefix="ringmaster-servers-")
        os.chmod(self.folder, 0o755)  # for servers that change their user
        self.port = free_port()
        command, environment = SERVERS[name][0](self.folder, self.port)
        if mode != "alone":
            command = [f"{build}/tools/run/ringmaster-run", "--report", "--policy", mode, "--"] + command
        self.log = open(f"{self.folder}/output", "w+")
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=self.folder,
                                        stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                                        start_new_session=True)  # some signal their whole group
        self.front = None
        if os.path.exists(f"{self.folder}/front.conf"):
            self.front = subprocess.Popen(
                ["nginx", "-c", f"{self.folder}/front.conf", "-p", self.folder], stdout=self.log,
                stderr=self.log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    text = self.output()
                    self.stop()
                    raise RuntimeError(f"{name} does not start: {text}")
                time.sleep(0.05)
        time.sleep(1.5)  # until all workers are there

    def output(self):
        self.log.flush()
        with open(f"{self.folder}/output") as file:
            return file.read()

    def stop(self):
        """Ends it, and returns the seconds that this took."""
        began = time.monotonic()
        left = descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            for pid in [self.process.pid] + left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            self.process.wait()
        took = time.monotonic() - began
        if self.front:
            self.front.terminate()
            self.front.wait()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.log.close()
        return took

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def load(build, how, server, seconds, while_open=None, clients=CLIENTS):
    process = subprocess.Popen([f"{build}/tests/run/http_load", how, str(server.port), str(clients),
                                str(seconds), "/"], stdout=subprocess.PIPE, stdin=subprocess.PIPE,
                               text=True)
    line = process.stdout.readline()
    result = json.loads(line)
    if while_open:
        result["connections"] = while_open()
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return result


def reported(output):
    return sorted((int(n) for n in re.findall(r"worker \d+ accepted (\d+)", output)), reverse=True)


def try_one(build, name, mode, seconds, loads):
    result = {}
    server = Server(build, name, mode)
    try:
        if "stay" in loads and name not in ONE_EACH:
            result["stay"] = load(build, "stay", server, seconds,
                                  lambda: by_process(server.process.pid, server.port))
        if "churn" in loads:
            before = used(server.process.pid)
            result["churn"] = load(build, "churn", server, seconds,
                                   clients=8 if name in ONE_EACH else CLIENTS)
            after = used(server.process.pid)
            answered = max(1, result["churn"]["answered"])
            result["churn"]["cpu_us"] = (after[0] - before[0]) * 1e6 / answered
            result["churn"]["switches"] = (after[1] - before[1]) / answered
    finally:
        result["stop_seconds"] = server.stop()
    result["output"] = open(f"{server.folder}/output").read() if os.path.exists(server.folder) else ""
    server.remove()
    return result


def even(counts):
    return len(counts) == WORKERS and max(counts) - min(counts) <= 1


def median(values):
    return statistics.median(values)


def against(runs, first, key):
    return median([one[key] / max(1, other[key]) for one, other in zip(runs, first)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--modes", default="alone,none,least-loaded")
    parser.add_argument("--loads", default="stay,churn")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--hogs", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    modes = options.modes.split(",")
    loads = options.loads.split(",")
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.hogs)]
    failed = []
    tried = 0
    everything = {}
    try:
        print(f"{'server':18} {'mode':13} {'stay: connections':24} {'req/s':>7} {'p50 ms':>7} "
              f"{'p99 ms':>7} {'churn/s':>8} {'x first':>7} {'p99 ms':>7} {'x first':>7} {'cpu':>6} "
              f"{'switches':>8} {'stop s':>6}")
        for name in options.servers.split(","):
            probe = SERVERS[name][0](tempfile.mkdtemp(prefix="ringmaster-probe-"), 1)[0][0]
            if shutil.which(probe) is None:
                print(f"{name:18} {probe} is not installed")
                continue
            runs = {mode: [] for mode in modes}
            for _ in range(options.repetitions):
                for mode in modes:
                    try:
                        runs[mode].append(try_one(build, name, mode, options.seconds, loads))
                    except RuntimeError as error:
                        failed.append(str(error))
            everything[name] = runs
            for mode in modes:
                if not runs[mode]:
                    continue
                tried += 1
                stay = [run["stay"] for run in runs[mode] if "stay" in run]
                churn = [run["churn"] for run in runs[mode] if "churn" in run]
                line = f"{name:18} {mode:13} "
                if stay:
                    counts = " ".join(map(str, stay[-1]["connections"]))
                    line += (f"{counts:24} {median([r['requests_per_second'] for r in stay]):7.0f} "
                             f"{median([r['p50_us'] for r in stay]) / 1000:7.2f} "
                             f"{median([r['p99_us'] for r in stay]) / 1000:7.2f} ")
                else:
                    line += f"{'':24} {'':7} {'':7} {'':7} "
                if churn:
                    first = [run["churn"] for run in runs[modes[0]]]
                    line += (f"{median([r['requests_per_second'] for r in churn]):8.0f} "
                             f"{against(churn, first, 'requests_per_second'):7.2f} "
                             f"{median([r['p99_us'] for r in churn]) / 1000:7.2f} "
                             f"{against(churn, first, 'p99_us'):7.2f} "
                             f"{median([r['cpu_us'] for r in churn]):6.0f} "
                             f"{median([r['switches'] for r in churn]):8.2f} ")
                else:
                    line += f"{'':8} {'':7} {'':7} {'':7} {'':6} {'':8} "
                line += f"{median([r['stop_seconds'] for r in runs[mode]]):6.2f}"
                lost = [f"{key} {sum(r[key] for r in stay + churn)}"
                        for key in ("refused", "reset", "wrong", "late")
                        if sum(r[key] for r in stay + churn)]
                print(line + ("  " + ", ".join(lost) if lost else ""), flush=True)
                if not options.check:
                    continue
                if lost:
                    failed.append(f"{name} {mode}: {', '.join(lost)}")
                if mode not in ("alone", "none") and SERVERS[name][1] and name != "haproxy":
                    # Where the machine is so busy that a worker gets no CPU for milliseconds, it
                    # loses a turn. So there are two more attempts.
                    counts = [r["connections"] for r in stay]
                    while not any(map(even, counts)) and len(counts) < len(stay) + 2:
                        again = try_one(build, name, mode, options.seconds, loads)
                        counts.append(again["stay"]["connections"])
                    if not any(map(even, counts)):
                        failed.append(f"{name} {mode}: {counts}")
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    if options.json:
        write(options.json, json.dumps(everything))
    for failure in failed:
        print(f"FAILED {failure}")
    if failed:
        return 1
    return 0 if tried else 77


if __name__ == "__main__":
    sys.exit(main())
