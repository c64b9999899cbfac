// What most files here include, compiled once. A file still includes what it needs: only builds
// with a sanitizer have this.

#ifndef RINGMASTER_TESTS_ATTACK_PCH_HEADERS_H_
#define RINGMASTER_TESTS_ATTACK_PCH_HEADERS_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"

#endif  // RINGMASTER_TESTS_ATTACK_PCH_HEADERS_H_
