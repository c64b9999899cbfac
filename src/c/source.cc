#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c/handles.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/balancer.h"
#include "ringmaster/ringmaster.h"

namespace ringmaster::c {
namespace {

static_assert(static_cast<int>(Intake::kPollAccept) == RINGMASTER_INTAKE_POLL_ACCEPT &&
              static_cast<int>(Intake::kAccept) == RINGMASTER_INTAKE_ACCEPT &&
              static_cast<int>(Intake::kReadiness) == RINGMASTER_INTAKE_READINESS);

ringmaster_source_options DefaultOptions() {
  const SourceOptions defaults;
  ringmaster_source_options options{};
  options.struct_size = sizeof(options);
  options.master = defaults.master;
  options.intake = static_cast<int>(defaults.intake);
  options.start_workers = defaults.start_workers;
  options.hold = defaults.hold;
  options.capacity = defaults.capacity;
  options.recall = defaults.recall;
  options.age_max_ns = NsOf(defaults.age_max);
  options.permits = defaults.permits;
  options.nonblocking = defaults.nonblocking;
  options.close_on_exec = defaults.close_on_exec;
  return options;
}

absl::StatusOr<SourceOptions> Translate(const ringmaster_source_options* given) {
  ringmaster_source_options from = DefaultOptions();
  absl::Status status = Read("ringmaster_source_options", given, &from);
  status.Update(CheckOneOf({"intake", from.intake}, RINGMASTER_INTAKE_READINESS,
                           "RINGMASTER_INTAKE_POLL_ACCEPT, RINGMASTER_INTAKE_ACCEPT and "
                           "RINGMASTER_INTAKE_READINESS"));
  status.Update(CheckYesOrNo({{"recall", from.recall},
                              {"permits", from.permits},
                              {"nonblocking", from.nonblocking},
                              {"close_on_exec", from.close_on_exec}}));
  status.Update(CheckReserved(from.reserved));
  if (!status.ok()) return status;
  SourceOptions options;
  options.master = from.master;
  options.intake = static_cast<Intake>(from.intake);
  options.start_workers = from.start_workers;
  options.hold = from.hold;
  options.capacity = from.capacity;
  options.age_max = DurationOf(from.age_max_ns);
  options.recall = from.recall != 0;
  options.permits = from.permits != 0;
  options.nonblocking = from.nonblocking != 0;
  options.close_on_exec = from.close_on_exec != 0;
  return options;
}

}  // namespace
}  // namespace ringmaster::c

using ringmaster::c::Do;
using ringmaster::c::Null;

int ringmaster_source_options_init(ringmaster_source_options* options, size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_source_options", ringmaster::c::DefaultOptions(),
                                struct_size, options);
  });
}

int ringmaster_balancer_add_source(ringmaster_balancer* balancer, int fd, ringmaster_policy* policy,
                                   const ringmaster_source_options* options,
                                   ringmaster_source** source) {
  return Do([&] {
    std::unique_ptr<ringmaster::Policy> taken = ringmaster::c::TakePolicy(policy, balancer);
    if (balancer == nullptr) return Null("balancer");
    if (source == nullptr) return Null("source");
    absl::StatusOr<ringmaster::SourceOptions> translated = ringmaster::c::Translate(options);
    if (!translated.ok()) return ringmaster::c::Failed(translated.status());
    translated->policy = std::move(taken);
    auto handle = std::make_unique<ringmaster_source>();
    absl::StatusOr<ringmaster::Source> added =
        balancer->balancer->AddSource(fd, *std::move(translated));
    if (!added.ok()) return ringmaster::c::Failed(added.status());
    handle->source = *std::move(added);
    handle->balancer = balancer;
    *source = handle.release();
    return 0;
  });
}

int ringmaster_source_join(ringmaster_source* source, ringmaster_port* port, uint64_t token) {
  return Do({{"source", source}, {"port", port}},
            [&] { return source->source.Join(port->port, {.token = token}); });
}

int ringmaster_source_leave(ringmaster_source* source, ringmaster_port* port) {
  return Do({{"source", source}, {"port", port}}, [&] { return source->source.Leave(port->port); });
}

int ringmaster_source_pause(ringmaster_source* source) {
  return Do({{"source", source}}, [&] { return source->source.Pause(); });
}

int ringmaster_source_resume(ringmaster_source* source) {
  return Do({{"source", source}}, [&] { return source->source.Resume(); });
}

int ringmaster_source_set_policy(ringmaster_source* source, ringmaster_policy* policy) {
  return Do([&] {
    std::unique_ptr<ringmaster::Policy> taken =
        ringmaster::c::TakePolicy(policy, source == nullptr ? nullptr : source->balancer);
    if (source == nullptr) return Null("source");
    if (taken == nullptr) return Null("policy");
    return ringmaster::c::ResultOf(source->source.SetPolicy(std::move(taken)));
  });
}

int ringmaster_source_again(ringmaster_source* source, int error) {
  return Do({{"source", source}}, [&] { return source->source.Again(error); });
}

int ringmaster_source_pass_on(ringmaster_source* source, int fd, ringmaster_lease* lease,
                              unsigned flags) {
  return Do({{"source", source}, {"lease", lease}}, [&]() -> absl::Status {
    if ((flags & ~RINGMASTER_PASS_ON_REQUEST_WAITS) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "flags is ", flags, "; of its bits this library knows RINGMASTER_PASS_ON_REQUEST_WAITS"));
    }
    ringmaster::Lease taken = ringmaster::internal::LeaseWords::Take(*lease);
    absl::Status passed_on = source->source.PassOn(
        fd, std::move(taken), {.request_waits = (flags & RINGMASTER_PASS_ON_REQUEST_WAITS) != 0});
    // Empty, if it was passed on.
    *lease = ringmaster::internal::LeaseWords::Give(std::move(taken));
    return passed_on;
  });
}

int ringmaster_source_remove(ringmaster_source* source) {
  return Do({{"source", source}}, [&] { return source->source.Remove(); });
}

int ringmaster_source_index(const ringmaster_source* source) {
  return Do({{"source", source}}, [&] { return static_cast<int>(source->source.index()); });
}

int ringmaster_source_free(ringmaster_source* source) {
  return Do([&] {
    delete source;
    return 0;
  });
}
