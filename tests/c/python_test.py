#!/usr/bin/env python3
"""A server in Python, through ctypes and the shared library alone, and clients that check it.

    python_test.py LIBRARY

Four workers with epoll loops claim without a callback; then a policy in Python decides.
"""

import collections
import ctypes
import errno
import os
import select
import socket
import sys
import threading

SKIPPED = 77
WORKERS = 4
CLIENTS = 4
FLOODS = 5
FLOOD = 400
# A worker is owed the turns that it misses, but no more than 1,024. So after each flood stragglers, who
# come one after the other, pay what is owed: so many at a time.
STRAGGLERS = 20
ROUNDS_MAX = 500

u32, u64, size, void = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p


class Connection(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("reserved", u32), ("token", u64), ("lease", size * 2)]


class SourceOptions(ctypes.Structure):
    _fields_ = [("struct_size", size), ("master", ctypes.c_int), ("intake", ctypes.c_int),
                ("start_workers", u32), ("hold", u32), ("capacity", u32), ("recall", ctypes.c_int),
                ("age_max_ns", ctypes.c_int64), ("permits", ctypes.c_int),
                ("nonblocking", ctypes.c_int), ("close_on_exec", ctypes.c_int), ("reserved", u32)]


class Report(ctypes.Structure):
    _fields_ = [("struct_size", size), ("drained", ctypes.c_int), ("reserved", u32),
                ("refused", u64), ("open", u64)]


class ShutdownOptions(ctypes.Structure):
    _fields_ = [("struct_size", size), ("drain_ns", ctypes.c_int64), ("on_intake_ended", void),
                ("on_ended", void), ("context", void)]


class Candidate(ctypes.Structure):
    _fields_ = [("worker", u32), ("open", u32), ("unclaimed", u32), ("credit", u32),
                ("cpu", ctypes.c_int32), ("still_ns", ctypes.c_int64),
                ("activity", ctypes.c_uint16), ("on_host", ctypes.c_uint8)]


class View(ctypes.Structure):
    _fields_ = [("struct_size", size), ("candidates", ctypes.POINTER(Candidate)),
                ("candidate_count", size), ("joined", ctypes.POINTER(u32)), ("joined_count", size)]


PICK = ctypes.CFUNCTYPE(size, void, void, ctypes.POINTER(View))


class PolicyFunctions(ctypes.Structure):
    # What follows `pick` is left out: a struct of an earlier version may end there.
    _fields_ = [("struct_size", size), ("name", ctypes.c_char_p), ("context", void),
                ("needs_incoming_cpu", ctypes.c_int), ("needs_peer", ctypes.c_int),
                ("any_thread", ctypes.c_int), ("reserved", u32), ("pick", PICK)]


class Library:
    """The functions, which raise an OSError with the text of the library where they fail."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.ringmaster_last_error.restype = ctypes.c_char_p

    def __getattr__(self, name):
        function = getattr(self.library, "ringmaster_" + name)

        def call(*arguments):
            result = function(*arguments)
            if result < 0:
                raise OSError(-result, self.library.ringmaster_last_error().decode())
            return result

        return call

    def make(self, name, *arguments):
        """Calls a function that stores a handle in its last argument."""
        handle = void()
        getattr(self, name)(*arguments, ctypes.byref(handle))
        return handle

    def filled(self, name, struct):
        getattr(self, name + "_init")(ctypes.byref(struct), size(ctypes.sizeof(struct)))
        return struct


class Worker(threading.Thread):
    def __init__(self, lib, balancer, source):
        super().__init__()
        self.lib = lib
        self.served = 0
        self.problem = None
        self.mailbox = lib.make("mailbox_create")
        self.port = lib.make("balancer_add_worker", balancer, self.mailbox, None)
        lib.source_join(source, self.port, u64(42))
        self.start()

    def run(self):
        try:
            self.serve()
        except Exception as problem:  # pylint: disable=broad-except
            self.problem = problem

    def serve(self):
        lib, connections = self.lib, {}
        epoll = select.epoll()
        mailbox_fd = lib.mailbox_fd(self.mailbox)
        epoll.register(mailbox_fd, select.EPOLLIN)
        while not lib.port_ended(self.port):
            lib.port_before_wait(self.port)
            ready = epoll.poll()
            lib.port_after_wait(self.port, 0)
            connection = Connection()
            while lib.port_claim_one(self.port, ctypes.byref(connection), None) == 1:
                assert connection.token == 42
                epoll.register(connection.fd, select.EPOLLIN)
                connections[connection.fd] = connection
                self.served += 1
                connection = Connection()
            for fd, _ in ready:
                if fd == mailbox_fd:
                    continue
                data = os.read(fd, 4096)
                if data:
                    os.write(fd, data)
                else:
                    lib.connection_close(ctypes.byref(connections.pop(fd)))
        epoll.close()
        assert not connections
        lib.port_free(self.port)
        lib.mailbox_free(self.mailbox)


def ask(address, numbers, problems):
    for number in numbers:
        text = f"{number} ".encode() * (1 + number % 50)
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while more := client.recv(4096):
                answer += more
        if answer != text:
            problems.append(f"{number}: {answer!r}")


def run_clients(address, clients, count):
    problems = []
    threads = [threading.Thread(target=ask, args=(address, range(i, count, clients), problems))
               for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]


def main():
    lib = Library(sys.argv[1])
    try:
        balancer = lib.make("balancer_create", None)
    except OSError as refused:
        if refused.errno in (errno.EPERM, errno.ENOSYS):
            print(f"skipped: {refused}")
            return SKIPPED
        raise
    try:
        lib.make("policy_by_name", b"round-rabbit")
        raise AssertionError("there is no such policy")
    except OSError as refused:
        assert refused.errno == errno.EINVAL and "round-robin" in str(refused), refused
    options = lib.filled("source_options", SourceOptions())
    options.start_workers = WORKERS
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    source = lib.make("balancer_add_source", balancer, listener.fileno(),
                      lib.make("policy_by_name", b"round-robin"), ctypes.byref(options))
    workers = [Worker(lib, balancer, source) for _ in range(WORKERS)]
    for _ in range(FLOODS):
        run_clients(listener.getsockname(), CLIENTS, FLOOD)
        for _ in range(ROUNDS_MAX):
            shares = [worker.served for worker in workers]
            if max(shares) - min(shares) <= 1:
                break
            run_clients(listener.getsockname(), 1, STRAGGLERS)
        assert max(shares) - min(shares) <= 1, shares
    print(f"served by the workers in turn: {shares}")

    # A policy in Python: everything goes to worker 2.
    picks = collections.Counter()

    def pick(_context, _arrival, view):
        picks["asked"] += 1
        for i in range(view.contents.candidate_count):
            if view.contents.candidates[i].worker == 2:
                return i
        return ctypes.c_size_t(-1).value  # nobody now

    functions = lib.filled("policy_functions", PolicyFunctions())
    functions.pick = PICK(pick)
    lib.source_set_policy(source, lib.make("policy_create", ctypes.byref(functions)))
    run_clients(listener.getsockname(), CLIENTS, 200)
    gained = [worker.served - share for worker, share in zip(workers, shares)]
    print(f"by a policy in Python: {gained}, asked {picks['asked']} times")
    assert gained == [0, 0, 200, 0] and picks["asked"] >= 200

    end = lib.filled("shutdown_options", ShutdownOptions())
    end.drain_ns = 20 * 10**9
    report = Report(struct_size=ctypes.sizeof(Report))
    lib.balancer_shutdown(balancer, ctypes.byref(end), ctypes.byref(report), None)
    for worker in workers:
        worker.join()
        assert worker.problem is None, worker.problem
    assert report.drained == 1 and report.refused == 0 and report.open == 0
    lib.source_free(source)
    lib.balancer_free(balancer)
    listener.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
