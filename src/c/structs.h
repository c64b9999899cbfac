// Structs of the C interface that begin with their own size, so that they can grow.

#ifndef RINGMASTER_SRC_C_STRUCTS_H_
#define RINGMASTER_SRC_C_STRUCTS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ringmaster::c {

// A struct of a later version is not larger. Whoever says more has set no size.
inline constexpr size_t kStructSizeMax = 4096;

// InvalidArgument for a size that no struct of this name has ever had.
absl::Status CheckStructSize(const char* name, size_t size);
// InvalidArgument unless all the bytes are zero: a later version's fields, which say something.
absl::Status CheckTail(const char* name, const void* tail, size_t size);

// `*to` has the defaults. Takes what `from` has of it; nothing if that is null.
template <typename Struct>
absl::Status Read(const char* name, const Struct* from, Struct* to) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
  if (from == nullptr) return absl::OkStatus();
  const size_t size = from->struct_size;
  if (absl::Status status = CheckStructSize(name, size); !status.ok()) return status;
  std::memcpy(to, from, std::min(size, sizeof(Struct)));
  if (size <= sizeof(Struct)) return absl::OkStatus();
  return CheckTail(name, reinterpret_cast<const char*>(from) + sizeof(Struct),
                   size - sizeof(Struct));
}

// Writes what the caller's struct of `size` bytes has of `from`, and zeros behind it.
template <typename Struct>
absl::Status Write(const char* name, const Struct& from, size_t size, Struct* to) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
  if (absl::Status status = CheckStructSize(name, size); !status.ok()) return status;
  std::memset(static_cast<void*>(to), 0, size);
  std::memcpy(to, &from, std::min(size, sizeof(Struct)));
  to->struct_size = size;
  return absl::OkStatus();
}

struct NamedValue {
  const char* name;
  int64_t value;
};

// InvalidArgument for a value that is neither 0 nor 1, or, the second, not 0.
absl::Status CheckYesOrNo(std::initializer_list<NamedValue> values);
absl::Status CheckReserved(uint32_t reserved);
// InvalidArgument for a value that is not from 0 to `last`. `values` are the names of all.
absl::Status CheckOneOf(NamedValue value, int64_t last, const char* values);

// Nanoseconds; INT64_MAX is for ever.
absl::Duration DurationOf(int64_t ns);
int64_t NsOf(absl::Duration duration);

}  // namespace ringmaster::c

#endif  // RINGMASTER_SRC_C_STRUCTS_H_
