#include <unistd.h>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c/handles.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/balancer.h"
#include "ringmaster/port.h"
#include "ringmaster/ringmaster.h"

namespace ringmaster::internal {

ringmaster_lease LeaseWords::Give(Lease lease) {
  if (lease.shared_ == nullptr) return {};
  return {{reinterpret_cast<uintptr_t>(std::exchange(lease.shared_, nullptr)),
           reinterpret_cast<uintptr_t>(lease.gate_)}};
}

Lease LeaseWords::Take(const ringmaster_lease& words) {
  return Lease(reinterpret_cast<PortShared*>(words.words[0]),
               reinterpret_cast<core::Gate*>(words.words[1]));
}

}  // namespace ringmaster::internal

namespace ringmaster::c {

using internal::LeaseWords;

ringmaster_connection Give(Connection connection) {
  const uint64_t token = connection.token();
  return {connection.TakeFd(), 0, token, LeaseWords::Give(connection.TakeLease())};
}

namespace {

static_assert(static_cast<int>(Handoff::kInbox) == RINGMASTER_HANDOFF_INBOX &&
              static_cast<int>(Handoff::kCompletion) == RINGMASTER_HANDOFF_COMPLETION &&
              static_cast<int>(Handoff::kDirect) == RINGMASTER_HANDOFF_DIRECT);

ringmaster_worker_options DefaultOptions() {
  const WorkerOptions defaults;
  ringmaster_worker_options options{};
  options.struct_size = sizeof(options);
  options.on_host = defaults.on_host;
  options.ring_fd = defaults.ring_fd;
  options.handoff = static_cast<int>(defaults.handoff);
  options.capacity = defaults.capacity;
  options.tag = defaults.tag;
  options.window = defaults.window;
  options.cpu = defaults.cpu;
  return options;
}

absl::StatusOr<WorkerOptions> Translate(const ringmaster_worker_options* given) {
  ringmaster_worker_options from = DefaultOptions();
  absl::Status status = Read("ringmaster_worker_options", given, &from);
  status.Update(CheckOneOf({"handoff", from.handoff}, RINGMASTER_HANDOFF_DIRECT,
                           "RINGMASTER_HANDOFF_INBOX, RINGMASTER_HANDOFF_COMPLETION and "
                           "RINGMASTER_HANDOFF_DIRECT"));
  status.Update(CheckYesOrNo({{"on_host", from.on_host}}));
  if (!status.ok()) return status;
  return WorkerOptions{.on_host = from.on_host != 0,
                       .ring_fd = from.ring_fd,
                       .handoff = static_cast<Handoff>(from.handoff),
                       .tag = from.tag,
                       .capacity = from.capacity,
                       .window = from.window,
                       .cpu = from.cpu};
}

// The ticket as a handle. Null if there is no memory for it; then the source is told.
ringmaster_ticket* GiveTicket(Ticket ticket) {
  auto* const handle = new (std::nothrow) ringmaster_ticket{std::move(ticket)};
  if (handle == nullptr) ticket.Again(ENOMEM);
  return handle;
}

absl::Status PortHasLeft() {
  return absl::FailedPreconditionError(
      "the port has left, so nothing can count as open there: add another worker");
}

}  // namespace
}  // namespace ringmaster::c

using ringmaster::Connection;
using ringmaster::Ticket;
using ringmaster::c::Do;
using ringmaster::c::LeaseWords;

int ringmaster_lease_release(ringmaster_lease* lease) {
  return Do({{"lease", lease}}, [&] {
    ringmaster::Lease taken = LeaseWords::Take(*lease);
    *lease = {};
    taken.Release();
    return 0;
  });
}

int ringmaster_lease_held(const ringmaster_lease* lease) {
  return Do({{"lease", lease}}, [&] { return lease->words[0] != 0 ? 1 : 0; });
}

int ringmaster_connection_close(ringmaster_connection* connection) {
  return Do({{"connection", connection}}, [&] {
    if (connection->fd >= 0) close(connection->fd);
    connection->fd = -1;
    return ringmaster_lease_release(&connection->lease);
  });
}

int ringmaster_mailbox_create(ringmaster_mailbox** mailbox) {
  return Do({{"mailbox", mailbox}}, [&]() -> absl::Status {
    auto handle = std::make_unique<ringmaster_mailbox>();
    absl::StatusOr<ringmaster::Mailbox> created = ringmaster::Mailbox::Create();
    if (!created.ok()) return created.status();
    handle->mailbox = *std::move(created);
    *mailbox = handle.release();
    return absl::OkStatus();
  });
}

int ringmaster_mailbox_fd(const ringmaster_mailbox* mailbox) {
  return Do({{"mailbox", mailbox}}, [&] {
    const int fd = mailbox->mailbox.fd();
    if (fd >= 0) return fd;
    return ringmaster::c::Failed(absl::FailedPreconditionError(
        "the mailbox's descriptor was closed in this process, which was forked from its owner"));
  });
}

int ringmaster_mailbox_free(ringmaster_mailbox* mailbox) {
  return Do([&] {
    delete mailbox;
    return 0;
  });
}

int ringmaster_worker_options_init(ringmaster_worker_options* options, size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_worker_options", ringmaster::c::DefaultOptions(),
                                struct_size, options);
  });
}

int ringmaster_balancer_add_worker(ringmaster_balancer* balancer, const ringmaster_mailbox* mailbox,
                                   const ringmaster_worker_options* options,
                                   ringmaster_port** port) {
  return Do({{"balancer", balancer}, {"port", port}}, [&]() -> absl::Status {
    const absl::StatusOr<ringmaster::WorkerOptions> translated = ringmaster::c::Translate(options);
    if (!translated.ok()) return translated.status();
    auto handle = std::make_unique<ringmaster_port>();
    absl::StatusOr<ringmaster::Port> added =
        mailbox == nullptr ? balancer->balancer->AddWorker(*translated)
                           : balancer->balancer->AddWorker(mailbox->mailbox, *translated);
    if (!added.ok()) return added.status();
    handle->port = *std::move(added);
    *port = handle.release();
    return absl::OkStatus();
  });
}

int ringmaster_port_claim(ringmaster_port* port, ringmaster_serve serve, ringmaster_redeem redeem,
                          void* context, size_t arrivals_max) {
  return Do({{"port", port}, {"serve", serve}}, [&] {
    bool no_memory = false;
    const auto serve_it = [&](Connection connection) {
      const ringmaster_connection given = ringmaster::c::Give(std::move(connection));
      serve(context, &given);
    };
    const auto redeem_it = [&](Ticket ticket) {
      ringmaster_ticket* const handle = ringmaster::c::GiveTicket(std::move(ticket));
      if (handle != nullptr) redeem(context, handle);
      no_memory |= handle == nullptr;
    };
    // A callback may free the port.
    const bool left = redeem == nullptr ? port->port.Claim(serve_it, arrivals_max)
                                        : port->port.Claim(serve_it, redeem_it, arrivals_max);
    if (no_memory) return ringmaster::c::NoMemory();
    return left ? 1 : 0;
  });
}

int ringmaster_port_claim_one(ringmaster_port* port, ringmaster_connection* connection,
                              ringmaster_ticket** ticket) {
  return Do({{"port", port}, {"connection", connection}}, [&] {
    *connection = ringmaster::c::kNoConnection;
    if (ticket != nullptr) *ticket = nullptr;
    bool claimed = false;
    bool no_memory = false;
    const auto serve_it = [&](Connection given) {
      *connection = ringmaster::c::Give(std::move(given));
      claimed = true;
    };
    const auto redeem_it = [&](Ticket given) {
      *ticket = ringmaster::c::GiveTicket(std::move(given));
      claimed = *ticket != nullptr;
      no_memory = !claimed;
    };
    // A ticket that the library redeems may come to nothing.
    for (bool left = true; left && !claimed && !no_memory;) {
      left = ticket == nullptr ? port->port.Claim(serve_it, 1)
                               : port->port.Claim(serve_it, redeem_it, 1);
    }
    if (no_memory) return ringmaster::c::NoMemory();
    return claimed ? 1 : 0;
  });
}

int ringmaster_port_took(ringmaster_port* port, size_t count) {
  return Do({{"port", port}}, [&] {
    port->port.Took(count);
    return 0;
  });
}

int ringmaster_port_adopt(ringmaster_port* port, ringmaster_lease* lease) {
  return Do({{"port", port}, {"lease", lease}}, [&]() -> absl::Status {
    ringmaster::Lease adopted = port->port.AdoptSlot();
    if (!adopted.held()) return ringmaster::c::PortHasLeft();
    *lease = LeaseWords::Give(std::move(adopted));
    return absl::OkStatus();
  });
}

int ringmaster_port_before_wait(ringmaster_port* port) {
  return Do({{"port", port}}, [&] {
    port->port.BeforeWait();
    return 0;
  });
}

int ringmaster_port_after_wait(ringmaster_port* port, int by_port) {
  return Do({{"port", port}}, [&] {
    const absl::Status status = ringmaster::c::CheckYesOrNo({{"by_port", by_port}});
    if (!status.ok()) return ringmaster::c::Failed(status);
    return port->port.AfterWait(by_port != 0) ? 1 : 0;
  });
}

int ringmaster_port_watch_sight(ringmaster_port* port) {
  return Do({{"port", port}}, [&] {
    const absl::StatusOr<int> fd = port->port.WatchSight();
    return fd.ok() ? *fd : ringmaster::c::Failed(fd.status());
  });
}

int64_t ringmaster_port_surplus(const ringmaster_port* port) {
  return Do({{"port", port}}, [&] { return int64_t{port->port.Surplus()}; });
}

int64_t ringmaster_port_to_pass_on(ringmaster_port* port, size_t ready) {
  return Do({{"port", port}}, [&]() -> int64_t {
    if (ready > INT32_MAX) {
      return ringmaster::c::Failed(absl::InvalidArgumentError(
          "ready is more than INT32_MAX: it is how many connections have something to do now"));
    }
    return static_cast<int64_t>(port->port.ToPassOn(ready));
  });
}

int ringmaster_port_set_capacity(ringmaster_port* port, uint32_t capacity) {
  return Do({{"port", port}}, [&] { return port->port.SetCapacity(capacity); });
}

int ringmaster_port_set_window(ringmaster_port* port, uint32_t window) {
  return Do({{"port", port}}, [&] { return port->port.SetWindow(window); });
}

int ringmaster_port_leave(ringmaster_port* port) {
  return Do({{"port", port}}, [&] {
    port->port.Leave();
    return 0;
  });
}

int ringmaster_port_draining(const ringmaster_port* port) {
  return Do({{"port", port}}, [&] { return port->port.draining() ? 1 : 0; });
}

int ringmaster_port_ended(const ringmaster_port* port) {
  return Do({{"port", port}}, [&] { return port->port.ended() ? 1 : 0; });
}

int ringmaster_port_joined(const ringmaster_port* port) {
  return Do({{"port", port}}, [&] { return port->port.joined() ? 1 : 0; });
}

int ringmaster_port_worker(const ringmaster_port* port) {
  return Do({{"port", port}}, [&] { return static_cast<int>(port->port.worker()); });
}

int ringmaster_port_free(ringmaster_port* port) {
  return Do([&] {
    delete port;
    return 0;
  });
}

int ringmaster_ticket_fd(const ringmaster_ticket* ticket) {
  return Do({{"ticket", ticket}}, [&] { return ticket->ticket.fd(); });
}

uint64_t ringmaster_ticket_token(const ringmaster_ticket* ticket) {
  return ticket == nullptr ? 0 : ticket->ticket.token();
}

uint32_t ringmaster_ticket_events(const ringmaster_ticket* ticket) {
  return ticket == nullptr ? 0 : ticket->ticket.events();
}

int ringmaster_ticket_accept(ringmaster_ticket* ticket, ringmaster_connection* connection) {
  return Do({{"ticket", ticket}, {"connection", connection}}, [&] {
    *connection = ringmaster::c::Give(ticket->ticket.Accept());
    return connection->fd >= 0 ? 1 : 0;
  });
}

int ringmaster_ticket_again(ringmaster_ticket* ticket, int error) {
  return Do({{"ticket", ticket}}, [&] {
    ticket->ticket.Again(error);
    return 0;
  });
}

int ringmaster_ticket_free(ringmaster_ticket* ticket) {
  return Do([&] {
    delete ticket;
    return 0;
  });
}
