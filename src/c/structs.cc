#include "c/structs.h"

#include "absl/strings/str_cat.h"
#include "ringmaster/ringmaster.h"

namespace ringmaster::c {

absl::Status CheckStructSize(const char* name, size_t size) {
  // One that ends in the middle of a field would have half a pointer.
  if (size > sizeof(size_t) && size <= kStructSizeMax && size % sizeof(size_t) == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "struct_size of ", name, " is ", size, ", which no version of it has: set it to ", "sizeof(",
      name, "), the struct's size and not that of a pointer to it"));
}

absl::Status CheckTail(const char* name, const void* tail, size_t size) {
  const char* const bytes = static_cast<const char*>(tail);
  if (std::all_of(bytes, bytes + size, [](char byte) { return byte == 0; }))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name,
                   " has fields that are set and that this library does not know: the program "
                   "was compiled for a later version than ",
                   ringmaster_version()));
}

absl::Status CheckYesOrNo(std::initializer_list<NamedValue> values) {
  for (const NamedValue& value : values) {
    if (value.value != 0 && value.value != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(value.name, " is ", value.value, "; it must be 1 (yes) or 0 (no)"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckReserved(uint32_t reserved) {
  if (reserved == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("reserved is ", reserved,
                   "; it must be 0: fill the struct in by its function "
                   "…_init first"));
}

absl::Status CheckOneOf(NamedValue value, int64_t last, const char* values) {
  if (value.value >= 0 && value.value <= last) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(value.name, " is ", value.value, ", which is not one of ", values));
}

absl::Duration DurationOf(int64_t ns) {
  return ns == RINGMASTER_FOREVER ? absl::InfiniteDuration() : absl::Nanoseconds(ns);
}

int64_t NsOf(absl::Duration duration) { return absl::ToInt64Nanoseconds(duration); }

}  // namespace ringmaster::c
