// Which version this is: of the headers that a program is compiled with, as macros, and of the
// library that it runs with, as functions. In C and in C++ alike. balancer.h and ringmaster.h
// include it.
//
//   #if RINGMASTER_VERSION_NUMBER >= 1002  // 0.1.2 or later
//
// The numbers are those of meson.build, which configures nothing if they differ.

#ifndef RINGMASTER_VERSION_H_
#define RINGMASTER_VERSION_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The version of this header.
#define RINGMASTER_VERSION_MAJOR 0
#define RINGMASTER_VERSION_MINOR 1
#define RINGMASTER_VERSION_PATCH 0
#define RINGMASTER_VERSION_STRING "0.1.0"
// Major times 1,000,000, plus minor times 1,000, plus patch.
#define RINGMASTER_VERSION_NUMBER 1000

// The version of the library that the program runs with: as RINGMASTER_VERSION_STRING, never null
// and never to be freed; and as RINGMASTER_VERSION_NUMBER.
const char* ringmaster_version(void);
uint32_t ringmaster_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // RINGMASTER_VERSION_H_
