// Affinity by hash: the same client, the same worker.
//
// What it decides. Every worker has a score for every peer: a hash of the peer's address, without
// the port, and of the worker's stable index. The candidate with the highest score gets the
// arrival. So each peer has its own order of all workers, and the first of them is its home. Only
// when the home lacks credit, or was recalled from, does the next worker get the arrival; no other
// peer is shifted by that. A worker that leaves displaces only its own peers, and one that joins
// attracts only those for which it has the highest score. A client of a Unix socket is known by its
// process, user and group. When the peer is unknown, this is least-loaded. Who waits does not
// matter otherwise: a client has one home.
//
// Source. Rendezvous hashing (Thaler and Ravishankar, 1996). It does what `ip_hash` of nginx and
// `balance source` of HAProxy are for. Unless they hash consistently, those shift nearly everybody
// when the number of servers changes.
//
// Cost. One pass over the candidates, with one hash for each. The master makes one getpeername for
// each connection, and for a Unix socket one getsockopt more.
//
// When not to use it. When it does not matter who serves: peers are not equally busy, so the load
// is not even. An address behind which many clients hide (NAT, a proxy, a load test on 127.0.0.1)
// is one peer, and its home gets all of them. What exceeds the home's credit goes to the next
// worker. So stickiness is a preference, and a worker must be able to serve a stranger. Clients
// that change their address, as IPv6 hosts do for privacy, change their worker. The hash is no
// secret: a client that can choose its address can choose its worker.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "policy/mix.h"
#include "policy/smallest_key.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

uint64_t HashOf(const Peer& peer) {
  uint64_t halves[2];
  static_assert(sizeof(halves) == sizeof(peer.address));
  std::memcpy(halves, peer.address.data(), sizeof(halves));
  const uint64_t kind = static_cast<uint64_t>(peer.kind) * kMixStep;
  return Mix(Mix(Mix(kind) ^ halves[0]) ^ halves[1]);
}

class AffinityHashPolicy final : public Policy {
 public:
  std::string name() const override { return "affinity-hash"; }

  FactsNeeded facts() const override { return {.peer = true}; }

  void Prepare(uint32_t worker_slots) override {
    for (size_t worker = salts_.size(); worker < worker_slots; ++worker) {
      salts_.push_back(Mix((worker + 1) * kMixStep));
    }
    unknown_peers_->Prepare(worker_slots);
  }

  // The highest score wins. No two workers have the same score for a peer, because Mix is a
  // bijection and no two workers have the same salt.
  size_t Pick(const Arrival& arrival, const View& view) override {
    if (arrival.peer.kind == Peer::Kind::kUnknown) return unknown_peers_->Pick(arrival, view);
    const uint64_t peer = HashOf(arrival.peer);
    return SmallestKey(view.candidates, [&](const Candidate& candidate) {
      return ~Mix(peer ^ salts_[candidate.worker]);
    });
  }

  bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const override {
    return arrival.peer.kind == Peer::Kind::kUnknown && unknown_peers_->MayMove(arrival, from, to);
  }

 private:
  std::vector<uint64_t> salts_;  // by index
  const std::unique_ptr<Policy> unknown_peers_ = LeastLoaded();
};

}  // namespace

std::unique_ptr<Policy> AffinityHash() { return std::make_unique<AffinityHashPolicy>(); }

}  // namespace ringmaster
