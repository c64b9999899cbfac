// What a parent shares with its workers: a piece of memory and some descriptors (WorkerProcesses).
// Each process has this object for itself, as a copy from fork or made anew after exec. So what
// stands here, unlike what stands in the area, nobody else can write.

#ifndef RINGMASTER_SRC_PROCESSES_SHARED_H_
#define RINGMASTER_SRC_PROCESSES_SHARED_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "processes/area.h"
#include "processes/choice.h"
#include "processes/descriptors.h"

namespace ringmaster::internal {

class ProcessShared {
 public:
  // The environment variable that tells a new program of it.
  static constexpr char kVariable[] = "RINGMASTER_PROCESSES";

  // In the parent.
  static absl::StatusOr<std::shared_ptr<ProcessShared>> Create(
      const processes::PolicyChoice& choice, uint32_t workers_max);
  // After exec. The descriptors are somebody else's still: see Forget.
  static absl::StatusOr<std::shared_ptr<ProcessShared>> FromVariable(const std::string& value);
  ~ProcessShared();
  ProcessShared(const ProcessShared&) = delete;
  ProcessShared& operator=(const ProcessShared&) = delete;

  processes::Area& area() { return *area_; }
  const processes::Descriptors& descriptors() const { return descriptors_; }
  // An eventfd that becomes readable at the end. It stands in every sight.
  int end() const { return end_; }
  const processes::PolicyChoice& choice() const { return choice_; }
  uint32_t workers_max() const { return workers_max_; }
  uint32_t sources() const { return sources_; }
  uint64_t token(uint32_t source) const { return tokens_[source]; }
  pid_t parent() const { return parent_; }
  // Where comes out what the parent gives to a place; -1: it gives nothing, or this process has
  // another place. The number tells one chute of a place from the next: it is the kernel's.
  int chute(uint32_t place) const { return chutes_[place]; }
  uint64_t chute_number(uint32_t place) const { return chute_numbers_[place]; }
  bool has_chutes() const { return has_chutes_; }
  // What a process with so many listeners writes where it owns a worker. Whoever writes there by
  // mistake hardly hits it.
  uint64_t OwnerOf(pid_t pid, uint32_t sources) const;
  bool IsOwner(uint64_t owner) const {
    return SourcesOf(owner) <= sources_ &&
           owner == OwnerOf(static_cast<pid_t>(owner >> 32), SourcesOf(owner));
  }
  static uint32_t SourcesOf(uint64_t owner) { return static_cast<uint32_t>(owner % kSourcesBound); }

  // In a child: whether each descriptor still is what it was in the parent. The program may have
  // closed some of them, and opened others by their numbers. So nothing is read or written there
  // before this.
  absl::Status Check() const;

  // What is wrong with a listener.
  static absl::Status CheckListener(int listen_fd);
  // Adds a listener, of which it makes a duplicate.
  absl::Status Add(int listen_fd, uint64_t token);
  void CloseListeners();
  // In the parent. A chute that replaces another one gets its descriptor's number.
  void SetChute(uint32_t place, int out);
  void ReplaceChute(uint32_t place, int out);
  // In a worker that has this place: what is for others is none of its business.
  void KeepOnlyChute(uint32_t place);
  // The area stays.
  void CloseDescriptors();
  // Leaves them open, and has none from now on.
  void Forget();
  void CloseOnExec() const;

  // The value of kVariable, and what it names.
  std::string Variable() const;
  template <typename Each>
  void ForEachDescriptor(Each each) const {
    for (const int fd : {descriptors_.memory, descriptors_.bell, descriptors_.keeper, end_}) {
      if (fd >= 0) each(fd);
    }
    for (uint32_t i = 0; i < workers_max_; ++i) {
      if (descriptors_.sights[i] >= 0) each(descriptors_.sights[i]);
    }
    for (uint32_t i = 0; i < sources_; ++i) {
      if (descriptors_.listeners[i] >= 0) each(descriptors_.listeners[i]);
    }
    for (uint32_t i = 0; i < workers_max_; ++i) {
      if (chutes_[i] >= 0) each(chutes_[i]);
    }
  }

 private:
  static constexpr uint32_t kSourcesBound = 32;
  static_assert(processes::kSourcesMax < kSourcesBound);

  ProcessShared() { chutes_.fill(-1); }
  absl::Status SetUp();
  absl::Status Map();
  absl::Status Changed(int fd, const char* what) const;
  absl::Status CheckSights() const;
  bool Parse(const std::string& value);

  processes::Area* area_ = nullptr;
  processes::Descriptors descriptors_;
  int end_ = -1;
  processes::PolicyChoice choice_;
  uint32_t workers_max_ = 0;
  uint32_t sources_ = 0;
  std::array<uint64_t, processes::kSourcesMax> tokens_{};
  std::array<uint64_t, processes::kSourcesMax> cookies_{};
  bool has_chutes_ = false;
  std::array<int, processes::kWorkersMax> chutes_;
  std::array<uint64_t, processes::kWorkersMax> chute_numbers_{};
  pid_t parent_ = 0;
  uint64_t secret_ = 0;
  uint64_t memory_number_ = 0;  // the kernel's, of the file
  bool inherited_ = false;      // after exec
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_PROCESSES_SHARED_H_
