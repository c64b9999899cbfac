// What happened in a simulated run: always as a hash, so that two runs can be compared, and as
// readable lines when asked for.

#ifndef RINGMASTER_SRC_SIM_TRACE_H_
#define RINGMASTER_SRC_SIM_TRACE_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace ringmaster::sim {

class Trace {
 public:
  struct Field {
    std::string_view name;
    int64_t value = 0;
  };

  // Borrows `text`, to which lines are appended; null: the hash only.
  explicit Trace(std::string* text) : text_(text) {}

  void Note(int64_t now_ns, std::string_view what, std::initializer_list<Field> fields = {}) {
    Mix(static_cast<uint64_t>(now_ns));
    for (const char letter : what) Mix(static_cast<uint64_t>(letter));
    for (const Field& field : fields) Mix(static_cast<uint64_t>(field.value));
    if (text_ == nullptr) return;
    const std::string time = std::to_string(now_ns);
    text_->append(time.size() < 12 ? 12 - time.size() : 0, ' ');
    text_->append(time).append("  ").append(what);
    for (const Field& field : fields) {
      text_->append("  ").append(field.name).append(" ").append(std::to_string(field.value));
    }
    text_->append("\n");
  }

  uint64_t hash() const { return hash_; }

 private:
  void Mix(uint64_t value) {
    hash_ = (hash_ ^ value) * 0x100000001b3;
    hash_ ^= hash_ >> 29;
  }

  std::string* text_;
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_TRACE_H_
