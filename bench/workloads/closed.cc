// How does throughput grow with the number of clients? Each connects, is answered and comes back at
// once, so no more connections arrive than there are clients. A mechanism that waits for further
// arrivals although everybody who could come has come shows here as a step downwards.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

class Closed : public Workload {
 public:
  explicit Closed(uint32_t clients) : clients_(clients) {}

  std::string name() const override { return absl::StrCat("closed-", clients_); }
  std::string title() const override {
    return absl::StrCat(clients_, clients_ == 1 ? " client" : " clients", " without a pause");
  }
  std::string description() const override {
    return absl::StrCat(
        clients_ == 1 ? "One client comes" : absl::StrCat(clients_, " clients come"),
        " back as soon as answered. Look at the connections per second, and "
        "whether they grow with the number of clients.");
  }
  Question question() const override { return Question::kThroughput; }
  bool open_loop() const override { return false; }
  bench::Load Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = clients_, .think_ns = 0};
  }

 private:
  const uint32_t clients_;
};

}  // namespace

template <uint32_t kClients>
std::unique_ptr<Workload> MakeClosed(const WorkloadOptions& /*options*/) {
  return std::make_unique<Closed>(kClients);
}

template std::unique_ptr<Workload> MakeClosed<1>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<2>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<4>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<8>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<16>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<32>(const WorkloadOptions& options);
template std::unique_ptr<Workload> MakeClosed<64>(const WorkloadOptions& options);

}  // namespace ringmaster::bench
