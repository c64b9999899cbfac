// A worker that is a program of its own, started by exec.

#include "process_server.h"

int main() { ringmaster::testing::ServeAsWorker(ringmaster::ProcessPort::Inherit()); }
