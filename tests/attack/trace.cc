#include "attack/trace.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ringmaster::attack {
namespace {

constexpr size_t kLinesMax = 1 << 16;  // later ones are not kept
constexpr size_t kLineBytes = 240;

// A line belongs to the thread that wrote it; another process reads it after the fact.
struct Kept {
  std::atomic<uint64_t> seed;
  std::atomic<uint64_t> worlds;
  std::atomic<uint64_t> by_permit;
  std::atomic<size_t> lines;
  char line[kLinesMax][kLineBytes];
};

Kept* kept = nullptr;
bool prints_all = false;
std::chrono::steady_clock::time_point began;
thread_local char thread_name[12] = "master";  // which nobody here names
thread_local char unkept[kLineBytes];

char* Line(size_t index) { return index < kLinesMax ? kept->line[index] : unkept; }

size_t Add(const char* format, va_list arguments) {
  const size_t index = kept->lines.fetch_add(1);
  const double ms = std::chrono::duration<double, std::milli>(  //
                        std::chrono::steady_clock::now() - began)
                        .count();
  char* line = Line(index);
  const int size = std::snprintf(line, kLineBytes, "%9.3f %-6s ", ms, thread_name);
  std::vsnprintf(line + size, kLineBytes - static_cast<size_t>(size), format, arguments);
  return index;
}

void Print(const char* line) {
  if (prints_all) std::fprintf(stderr, "%s\n", line);
}

}  // namespace

void PrepareTrace(bool print_all) {
  void* memory =
      mmap(nullptr, sizeof(Kept), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  kept = static_cast<Kept*>(memory);
  prints_all = print_all;
}

void BeginTrace(uint64_t seed) {
  began = std::chrono::steady_clock::now();
  kept->seed.store(seed);
  kept->worlds.fetch_add(1);
  kept->lines.store(0);
}

uint64_t TracedSeed() { return kept->seed.load(); }

uint64_t TracedWorlds() { return kept->worlds.load(); }

void TraceByPermit(uint64_t count) { kept->by_permit.fetch_add(count); }

uint64_t TracedByPermit() { return kept->by_permit.load(); }

void PrintLastCalls(size_t lines_max) {
  const size_t end = std::min(kept->lines.load(), kLinesMax);
  const size_t first = end - std::min(end, lines_max);
  for (size_t i = 0; i < std::min<size_t>(first, 2); ++i)  // the configuration
    std::fprintf(stderr, "  %.*s\n", static_cast<int>(kLineBytes), kept->line[i]);
  for (size_t i = first; i < end; ++i)
    std::fprintf(stderr, "  %.*s\n", static_cast<int>(kLineBytes), kept->line[i]);
}

void NameThread(const char* name) { std::snprintf(thread_name, sizeof(thread_name), "%s", name); }

const char* ThreadName() { return thread_name; }

Call::Call(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  index_ = Add(format, arguments);
  va_end(arguments);
}

void Call::Returns(const char* format, ...) {
  char* line = Line(index_);
  size_t size = strnlen(line, kLineBytes - 5);
  size += static_cast<size_t>(std::snprintf(line + size, 5, " -> "));
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line + size, kLineBytes - size, format, arguments);
  va_end(arguments);
  Print(line);
}

void Call::Forget() {
  size_t next = index_ + 1;
  kept->lines.compare_exchange_strong(next, index_);
}

const char* Call::line() const { return Line(index_); }

void Note(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Print(Line(Add(format, arguments)));
  va_end(arguments);
}

void Fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  Note("FAILS: %s", text);
  std::fprintf(stderr, "attack: seed %llu: %s: %s\n", static_cast<unsigned long long>(TracedSeed()),
               thread_name, text);
  std::abort();
}

}  // namespace ringmaster::attack
