// What most files here include, compiled once. A file still includes what it needs: only builds
// with a sanitizer have this.

#ifndef RINGMASTER_TESTS_CORE_PCH_HEADERS_H_
#define RINGMASTER_TESTS_CORE_PCH_HEADERS_H_

#include "core/engine_fixture.h"
#include "support/pch/headers.h"

#endif  // RINGMASTER_TESTS_CORE_PCH_HEADERS_H_
