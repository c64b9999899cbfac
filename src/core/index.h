// Indexes of sources and workers. Both are numbers, and often stand beside each other; these types
// keep one from being taken for the other. Both are used as numbers wherever they stand alone.

#ifndef RINGMASTER_SRC_CORE_INDEX_H_
#define RINGMASTER_SRC_CORE_INDEX_H_

#include <cstdint>

namespace ringmaster::core {

// A number is no source before somebody says so.
class SourceIndex {
 public:
  constexpr SourceIndex() = default;
  explicit constexpr SourceIndex(uint32_t number) : number_(number) {}
  constexpr operator uint32_t() const { return number_; }

 private:
  uint32_t number_ = 0;
};

// Any number may be a worker, but for that of a source.
class WorkerIndex {
 public:
  constexpr WorkerIndex(uint32_t number) : number_(number) {}
  WorkerIndex(SourceIndex) = delete;
  constexpr operator uint32_t() const { return number_; }

 private:
  uint32_t number_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_INDEX_H_
