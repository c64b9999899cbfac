// Marks a worker that uses a source's descriptor by a ticket: see core::SourceIdentity.

#ifndef RINGMASTER_SRC_RUNTIME_REDEEMING_H_
#define RINGMASTER_SRC_RUNTIME_REDEEMING_H_

#include "core/port_state.h"

namespace ringmaster::internal {

// While it lasts, whoever removes the source waits. The destructor also runs when the thread is
// cancelled within accept4. Any thread; borrows the state.
class Redeeming {
 public:
  explicit Redeeming(core::PortState& state) : state_(state) {
    state_.redeeming.fetch_add(1, std::memory_order_seq_cst);
  }
  ~Redeeming() { state_.redeeming.fetch_sub(1, std::memory_order_seq_cst); }
  Redeeming(const Redeeming&) = delete;
  Redeeming& operator=(const Redeeming&) = delete;

 private:
  core::PortState& state_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_REDEEMING_H_
