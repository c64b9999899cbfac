// The end of one master: by when it was asked for, how far it has come, and who is told.

#ifndef RINGMASTER_SRC_RUNTIME_MASTER_END_H_
#define RINGMASTER_SRC_RUNTIME_MASTER_END_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "ringmaster/stats.h"
#include "runtime/calls.h"
#include "runtime/environment.h"

namespace ringmaster::internal {

// "With the lock" means that the caller holds its mutex. Everything else belongs to the thread that
// drives the master.
class MasterEnd {
 public:
  // Borrows both.
  MasterEnd(MasterLock* lock, const MasterEnvironment& environment)
      : lock_(*lock), environment_(environment) {}
  MasterEnd(const MasterEnd&) = delete;
  MasterEnd& operator=(const MasterEnd&) = delete;

  // Any thread, with the lock. Everything ends by `until_ns` of the monotonic clock, or earlier if
  // that was asked for before.
  void Ask(int64_t until_ns);
  // With the lock: whether somebody has asked since the last Obey.
  bool asked() const { return asked_ns_.has_value(); }

  // Takes over what was asked for. True: for the first time, so now the intake is to stop. Workers
  // that ask find that the balancer drains.
  bool Obey();
  bool begun() const { return begun_; }
  bool Due(int64_t now_ns) const { return now_ns >= until_ns_; }
  // How long the master may wait that otherwise would wait for `wait_ns`. After the deadline it is
  // woken by the ends of intake that are still to come.
  int64_t Limit(int64_t wait_ns, int64_t now_ns) const;

  // The master refers to no source any more. Only the first call does something.
  void SayIntakeEnded();
  bool intake_ended_said() const { return intake_ended_said_; }
  // Workers that ask find that the master has ended. Only the first call does something.
  void Count();

  // What is left is being refused. `refused` is how much was refused before.
  void Refuse(uint64_t refused);
  // It is being refused because there was no time left, or no ring.
  void GiveUp() { given_up_ = true; }
  bool given_up() const { return given_up_; }
  // Also counts as the deadline that has passed.
  void GiveUpNow();

  // Completes the report, whose statistics and open connections are there, and shows it to all. The
  // program is told, if this is the last master.
  void Report(ShutdownReport report);
  // With the lock, at last. From now on every call is refused with this status.
  void Complete(absl::Status why);

  // With the lock.
  bool ended() const { return ended_; }
  const absl::Status& why() const { return why_; }
  const std::optional<ShutdownReport>& report() const { return report_; }

 private:
  MasterLock& lock_;
  const MasterEnvironment& environment_;
  // Guarded by the lock.
  std::optional<int64_t> asked_ns_;  // and not yet obeyed
  std::optional<ShutdownReport> report_;
  bool ended_ = false;
  absl::Status why_;
  // The master's own.
  bool begun_ = false;
  int64_t until_ns_ = 0;
  bool intake_ended_said_ = false;
  bool counted_ = false;
  std::optional<uint64_t> refused_before_;
  bool given_up_ = false;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MASTER_END_H_
