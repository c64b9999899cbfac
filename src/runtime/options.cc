#include "runtime/options.h"

#include <sched.h>

#include <cstddef>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/engine.h"
#include "core/inbox.h"
#include "core/intake.h"
#include "ring/translate.h"
#include "runtime/descriptor.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kMastersMax = 16;
constexpr size_t kThreadNameMax = 15;

absl::Status NoCapacityAtAll(const char* whose) {
  return absl::InvalidArgumentError(absl::StrCat(
      "capacity of the ", whose,
      " is 0: nothing could ever be accepted; it must be at least 1, or left alone for no limit"));
}

// A value that was cast to an enumeration and is none of it.
absl::Status NoSuch(const char* what, int value, const std::string& values) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is ", value, ", which is not one of ", values));
}

absl::Status CheckCpu(int cpu) {
  if (cpu >= -1 && cpu < CPU_SETSIZE) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("cpu ", cpu, " does not exist: it is from 0 to ",
                                                 CPU_SETSIZE - 1,
                                                 ", or -1 for a thread that is not bound"));
}

absl::Status CheckMasters(const BalancerOptions& options) {
  if (options.masters < 1 || options.masters > kMastersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("masters is ", options.masters, "; it must be from 1 to ", kMastersMax));
  }
  if (options.masters == 1) return absl::OkStatus();
  if (options.host != Host::kThread) {
    return absl::InvalidArgumentError(
        "masters is more than 1, but a loop drives a single master: leave masters alone, or use "
        "Host::kThread");
  }
  if (options.cpu >= 0) {
    return absl::InvalidArgumentError(
        "cpu is set, but one CPU is too few for several masters: leave cpu alone, or set masters "
        "to 1");
  }
  return absl::OkStatus();
}

absl::Status CheckAgeMax(const SourceOptions& options) {
  if (options.age_max == absl::InfiniteDuration()) return absl::OkStatus();
  const core::IntakeType& intake = core::TypeOf(KindOf(options.intake));
  if (intake.tickets) {
    return absl::InvalidArgumentError(
        absl::StrCat("age_max is set, but with Intake::", intake.name,
                     " nothing is accepted before a worker claims it: leave age_max alone, or use "
                     "Intake::kPollAccept"));
  }
  if (options.age_max < absl::Milliseconds(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("age_max is ", absl::FormatDuration(options.age_max),
                     "; it must be at least 1ms, or unset for no limit"));
  }
  return absl::OkStatus();
}

absl::Status CheckHold(const SourceOptions& options) {
  if (!core::TypeOf(KindOf(options.intake)).accepts_each) return absl::OkStatus();
  if (options.hold == 0) {
    return absl::InvalidArgumentError(
        "hold is 0, but a multishot accept accepts at least one connection ahead of credit: set "
        "hold to 1 or more, or use Intake::kPollAccept for exact admission");
  }
  if (options.hold > core::kRecordsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("hold is ", options.hold, "; it must be from 1 to ", core::kRecordsMax,
                     ", because each connection that is held is a descriptor, and a process can "
                     "have no more than that (fs.nr_open). A small hold loses nothing: what is not "
                     "held waits in the backlog"));
  }
  return absl::OkStatus();
}

absl::Status CheckOnHost(const WorkerOptions& options, Host host) {
  if (host == Host::kThread) {
    return absl::InvalidArgumentError(
        "on_host is set, but this balancer has a thread of its own: create it with Host::kLoop "
        "or Host::kRing, or add the worker by its ring or mailbox");
  }
  if (options.ring_fd != -1 || options.tag != 0 || options.handoff != Handoff::kInbox) {
    return absl::InvalidArgumentError(
        "ring_fd, tag or handoff is set beside on_host: a worker on the host claims after each "
        "RunOnce and needs none of them; leave ring_fd, tag and handoff alone");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOptions(const BalancerOptions& options) {
  if (options.host > Host::kRing) {
    return NoSuch("host", static_cast<int>(options.host), "kThread, kLoop and kRing");
  }
  if (absl::Status status = CheckMasters(options); !status.ok()) return status;
  // Several get "-0", "-1" … appended.
  const size_t digits = options.masters > 10 ? 3 : options.masters > 1 ? 2 : 0;
  if (options.thread_name.size() + digits > kThreadNameMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "thread_name \"", options.thread_name, "\" is too long: the kernel keeps ", kThreadNameMax,
        " characters", digits > 0 ? absl::StrCat(", of which a number takes ", digits) : ""));
  }
  if (absl::Status status = CheckCpu(options.cpu); !status.ok()) return status;
  if (options.host != Host::kThread && options.cpu >= 0) {
    return absl::InvalidArgumentError(
        "cpu is set, but with a host there is no thread to bind: bind the thread of your "
        "loop");
  }
  if (options.recall_after < absl::Microseconds(100) || options.recall_after > absl::Seconds(60)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "recall_after is ", absl::FormatDuration(options.recall_after),
        "; it must be from 100us to 1min. Below that, workers in good health would lose their "
        "offers. To do without recall, set SourceOptions::recall to false"));
  }
  if (options.capacity == 0) return NoCapacityAtAll("balancer");
  if (options.completion_entries < 64 || options.completion_entries > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("completion_entries is ", options.completion_entries,
                     "; it must be from 64 to 65536. A batch of accepts would fill a smaller "
                     "queue, and the kernel makes no larger one"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const SourceOptions& options, uint32_t masters) {
  if (!Exists(options.intake)) {
    std::string names = core::kIntakes[0]->name;
    for (size_t i = 1; i < std::size(core::kIntakes); ++i) {
      const bool last = i + 1 == std::size(core::kIntakes);
      absl::StrAppend(&names, last ? " and " : ", ", core::kIntakes[i]->name);
    }
    return NoSuch("intake", static_cast<int>(options.intake), names);
  }
  if (absl::Status status = CheckHold(options); !status.ok()) return status;
  if (options.capacity == 0) return NoCapacityAtAll("source");
  if (options.start_workers == 0) {
    return absl::InvalidArgumentError(
        "start_workers is 0, but without a worker there is nobody to deal to: set it to the number "
        "of workers that are to join before the source starts, or leave it alone");
  }
  if (absl::Status status = CheckAgeMax(options); !status.ok()) return status;
  if (options.master < -1 || options.master >= static_cast<int>(masters)) {
    return absl::InvalidArgumentError(
        absl::StrCat("master is ", options.master, ", but this balancer has ", masters,
                     masters == 1 ? " master" : " masters",
                     ", numbered from 0. Choose one of them, or -1 for the one with the fewest "
                     "sources, or raise BalancerOptions::masters"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const WorkerOptions& options, Host host) {
  if (options.handoff > Handoff::kDirect) {
    return NoSuch("handoff", static_cast<int>(options.handoff), "kInbox, kCompletion and kDirect");
  }
  if (options.handoff == Handoff::kDirect && host == Host::kRing) {
    return absl::FailedPreconditionError(
        "with Host::kRing the master has no file table of its own, by which connections get into "
        "the worker's: use Handoff::kCompletion, or Host::kLoop or kThread");
  }
  if (absl::Status status = CheckWindow(options.window); !status.ok()) return status;
  if (absl::Status status = CheckCapacity(options.capacity); !status.ok()) return status;
  if (absl::Status status = CheckCpu(options.cpu); !status.ok()) return status;
  return options.on_host ? CheckOnHost(options, host) : absl::OkStatus();
}

absl::Status CheckLoan(const RingLoan& loan) {
  if (!loan.get_sqe || !loan.submit) {
    return absl::InvalidArgumentError(
        "the loan lacks get_sqe or submit: set both, because the master submits its operations "
        "through the ring that is lent; see RingLoan");
  }
  if (loan.user_data_mask == 0 || (loan.user_data_mask & ring::kKeyMask) != 0 ||
      (loan.user_data_value & ~loan.user_data_mask) != 0) {
    return absl::InvalidArgumentError(
        "the loan's user_data_mask must be made of bits of the highest byte, and user_data_value "
        "of bits of the mask: the master needs the other 56 bits itself");
  }
  return absl::OkStatus();
}

absl::Status CheckCapacity(uint32_t capacity) {
  if (capacity > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "capacity is 0: such a worker could never be offered anything; it must be at least 1, or "
      "left alone for no limit");
}

absl::Status CheckWindow(uint32_t window) {
  if (window >= 1 && window <= core::Inbox::kWindowMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("window is ", window, "; it must be from 1 to ", core::Inbox::kWindowMax,
                   ", because memory for that many offers is allocated at once"));
}

}  // namespace ringmaster::internal
